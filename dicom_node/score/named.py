"""The one bank that a person named instead of the active ones; kept until another is named.

Owns when it is loaded anew. Knows nothing of images.
"""

from __future__ import annotations

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank_store import BankStore
from dicom_node.score.scoring import AnyScorer, load_scorer


class NamedBank:
    """Loads the bank that was named last.

    Parameters
    ----------
    store
        Where banks are.
    backbones
        Those loaded already; see `load_scorer`.
    """

    def __init__(self, store: BankStore, backbones: dict[tuple[str, str], Backbone]) -> None:
        self._store = store
        self._backbones = backbones
        self._scorer: AnyScorer | None = None

    def loaded(self, name: str) -> bool:
        """Say whether the bank of that name, as it is now, is loaded."""
        try:
            return (
                self._scorer is not None and self._scorer.bank.bank_hash == self._store.manifest(name).bank_hash
            )
        except BankError:
            return False

    def scorer(self, name: str) -> AnyScorer:
        """Return the bank's scorer.

        Raises
        ------
        BankError
            If there is no such bank, or it is damaged.
        """
        if self._scorer is None or not self.loaded(name):
            self._scorer = None  # two at once may be more than the memory holds
            self._scorer = load_scorer(self._store.path(name), self._backbones)
        return self._scorer
