"""What can be wrong with what is held. Plain values; who finds them and who mends them is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    """A kind of fault; the words do not change."""

    MISSING_IMAGE = "missing-image"
    DAMAGED_IMAGE = "damaged-image"
    ORPHAN_IMAGE = "orphan-image"
    FOUND_IMAGE = "found-image"
    DAMAGED_ORPHAN = "damaged-orphan"
    MISSING_REPORT = "missing-report"
    DAMAGED_REPORT = "damaged-report"
    MISSING_OBJECT = "missing-object"
    DAMAGED_OBJECT = "damaged-object"
    ORPHAN_REPORT = "orphan-report"
    MISSING_STEP = "missing-step"
    DAMAGED_STEP = "damaged-step"
    ORPHAN_STEP = "orphan-step"
    LEFT_OVER = "left-over"
    STALE = "stale-file"
    WRONG_MODE = "wrong-mode"
    LINK = "symbolic-link"
    FOREIGN = "foreign-file"
    NO_ANALYSIS = "no-analysis"
    UNANSWERED = "unanswered"
    NO_DELIVERY = "no-delivery"
    UNRECORDED_DELIVERY = "unrecorded-delivery"
    DATABASE = "database"


NEEDS_A_PERSON = frozenset({Code.LINK, Code.FOREIGN, Code.UNRECORDED_DELIVERY, Code.DATABASE})
"""Faults that no program should mend by itself."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes
    ----------
    what
        Where it is: a path below the store's root, or a digest, or the work that is missing.
    detail
        What was seen, for people.
    study_instance_uid, revision, digest, destination
        Of what it concerns, where known.
    """

    code: Code
    what: str
    detail: str
    study_instance_uid: str = ""
    revision: int = 0
    digest: str = ""
    destination: str = ""
