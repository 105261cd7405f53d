"""The scorers of the active banks: loaded when they are first needed, and anew when others are active."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank_store import ACTIVE, BankStore
from dicom_node.score.scoring import AnyScorer, load_scorer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The scorers of the active banks, and the state of the file that named them."""

    stamp: tuple[int, ...]
    scorers: tuple[AnyScorer, ...]


class ActiveBanks:
    """Loads the active banks of one folder. Safe to share between threads.

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
        self._loaded: _Loaded | None = None
        self._loading = threading.Lock()

    def changed(self) -> bool:
        """Say whether other banks are active than those loaded."""
        return self._loaded is None or self._loaded.stamp != self._stamp()

    def scorers(self) -> tuple[AnyScorer, ...]:
        """Return the active banks' scorers, loaded anew when ``active.json`` has changed.

        Raises
        ------
        BankError
            If one is missing, damaged, or not the one that was activated.
        """
        stamp = self._stamp()
        current = self._loaded
        if current is not None and current.stamp == stamp:
            return current.scorers
        with self._loading:
            stamp = self._stamp()
            if self._loaded is None or self._loaded.stamp != stamp:
                self._loaded = _Loaded(stamp, tuple(self._load()))
            return self._loaded.scorers

    def _load(self) -> list[AnyScorer]:
        scorers: list[AnyScorer] = []
        for name, pinned in self._store.active_hashes().items():
            scorer = load_scorer(self._store.path(name), self._backbones)
            if scorer.bank.bank_hash != pinned:
                raise BankError(
                    f"bank {name} has hash {scorer.bank.bank_hash}; {pinned} was activated: "
                    "activate it again if it was replaced on purpose"
                )
            scorers.append(scorer)
            log.info("bank loaded", extra={"bank": name, "bank_hash": pinned})
        return scorers

    def _stamp(self) -> tuple[int, ...]:
        try:
            facts = (self._store.root / ACTIVE).stat()
        except FileNotFoundError:
            return ()
        return (facts.st_ino, facts.st_mtime_ns, facts.st_size)
