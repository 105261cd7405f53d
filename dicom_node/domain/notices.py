"""What a peer tells of a study that it makes or keeps: a performed step, or which images there are. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

StepState = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]


class Noted(Enum):
    """What became of something that was told."""

    DONE = "done"
    KNOWN_ALREADY = "known already"
    NEVER_HEARD_OF = "never heard of"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Available:
    """An Instance Availability Notification (PS3.3 C.4.23): the images of a study that its sender has."""

    sop_instance_uid: str
    study_instance_uid: str
    images: frozenset[str]


@dataclass(frozen=True, slots=True)
class Performed:
    """What one message says of a performed procedure step (PS3.3 C.4.14, C.4.15).

    Attributes
    ----------
    studies
        Study Instance UIDs; only its beginning names them.
    state
        None where the message does not say.
    images
        SOP Instance UIDs; None where the message does not say.
    """

    sop_instance_uid: str
    studies: frozenset[str] = frozenset()
    state: StepState | None = None
    images: frozenset[str] | None = None


class Ledger(Protocol):
    """Takes note, for good, before it returns. Each method raises a NodeError if it cannot."""

    def available(self, notice: Available) -> Noted:
        """DONE, or KNOWN_ALREADY."""

    def begun(self, step: Performed) -> Noted:
        """DONE, or KNOWN_ALREADY."""

    def went_on(self, step: Performed) -> Noted:
        """DONE, NEVER_HEARD_OF, or OVER where the step had ended before."""
