"""What the node keeps of one association: its facts, and whether its opening and end were reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import count

from dicom_node.domain.errors import NodeError

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
    """One connection, from accept to end. Every method runs in that connection's threads, one at a time."""

    def __init__(self, association_id: str) -> None:
        self.id = association_id
        self.facts: AssociationFacts | None = None
        self._numbers = count(1)
        self._reported = False

    def next_name(self) -> str:
        """Return a file name that no other data set has."""
        return f"{self.id}-{next(self._numbers)}.dcm"

    def report_opened(self, opened: Callable[[AssociationFacts], None]) -> None:
        """Report the opening, unless that has succeeded before. A NodeError is logged."""
        if self._reported or self.facts is None:
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
