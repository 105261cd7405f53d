"""Storage commitment as values (PS3.4 annex J): what is asked for, and what is answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance of the Storage Commitment Push Model (PS3.4 section J.3.5)."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An object by its SOP Class and SOP Instance UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An object that is not committed, and the Failure Reason (PS3.3 section C.14.1.1)."""

    reference: Reference
    reason: int


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """The answer to one transaction: every object asked for is in one of the two."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """What a peer asks this node to commit itself to. AE title and Transaction UID together are unique."""

    transaction_uid: str
    references: tuple[Reference, ...]
    calling_ae_title: str
    peer_address: str
    at: datetime


FAILURE_REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0213: "resource limitation",
    0x0122: "referenced SOP Class not supported",
    0x0119: "class / instance conflict",
    0x0131: "duplicate transaction UID",
}
"""PS3.3 section C.14.1.1."""
