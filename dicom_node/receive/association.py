"""What the node keeps of one association: its facts, what it may do, and which of its ends were reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from pynetdicom.association import Association

from dicom_node.domain.errors import NodeError
from dicom_node.receive.guard import Admission

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AssociationFacts:
    """Who associated, from where, when. `id` is unique for ever."""

    id: str
    calling: str
    called: str
    peer_address: str
    at: datetime


class Link:
    """One association, from its admission to its end. Every method runs in its threads, one at a time.

    Attributes
    ----------
    association
        None until its thread has begun.
    """

    def __init__(self, facts: AssociationFacts, admission: Admission) -> None:
        self.id = facts.id
        self.facts = facts
        self.admission = admission
        self.association: Association | None = None
        self._numbers = count(1)
        self._reported = False

    @property
    def accepted(self) -> dict[int | None, tuple[str, str]]:
        """Abstract and transfer syntax of each accepted presentation context, by its ID."""
        contexts = self.association.accepted_contexts if self.association else ()
        return {one.context_id: (str(one.abstract_syntax), str(one.transfer_syntax[0])) for one in contexts}

    def next_name(self) -> str:
        """Return a file name that no other data set has."""
        return f"{self.id}-{next(self._numbers)}.dcm"

    def report_opened(self, opened: Callable[[AssociationFacts], None]) -> None:
        """Report the opening, unless that has succeeded before. A NodeError is logged."""
        if self._reported:
            return
        try:
            opened(self.facts)
        except NodeError as error:
            log.warning("association not recorded", extra={"association_id": self.id, "reason": str(error)})
        else:
            self._reported = True

    def report_ended(self, ended: Callable[[str, str], None], *, released: bool) -> None:
        """Report the end, if the opening was reported. A NodeError is logged."""
        if not self._reported:
            return
        try:
            ended(self.id, "released" if released else "aborted")
        except NodeError as error:
            log.warning(
                "end of association not recorded", extra={"association_id": self.id, "reason": str(error)}
            )
