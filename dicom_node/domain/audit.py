"""What the audit trail tells of, as values: who did what to which study or setting, and when.

Whoever does such a thing says so by calling an `Audit` with one of these values; which of DICOM's audit messages it
becomes, and where that goes, is the business of `observe`. No value holds a patient attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum


class AuditOutcome(Enum):
    """EventOutcomeIndicator of PS3.15 A.5.1: how what was tried came out."""

    SUCCESS = "0"
    MINOR_FAILURE = "4"
    SERIOUS_FAILURE = "8"
    MAJOR_FAILURE = "12"


class Setting(Enum):
    """What an administrator's action changes or uses, as types of a Security Alert (PS3.16 CID 403)."""

    NETWORK = "network"
    SECURITY = "security"
    SOFTWARE = "software"
    RESTRICTED = "restricted function"
    USERS = "users"


@dataclass(frozen=True, slots=True)
class Party:
    """The other side of a transfer or an association. `address` is an IP address or a host name."""

    ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class ApplicationActivity:
    """The node has started, or is about to stop."""

    at: datetime
    started: bool


@dataclass(frozen=True, slots=True)
class AssociationOpened:
    """A peer was let in to store."""

    at: datetime
    peer: Party
    called_ae_title: str


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """A peer was turned away, because of `why`; also one that came no further than its connection."""

    at: datetime
    peer: Party
    called_ae_title: str
    why: str


@dataclass(frozen=True, slots=True)
class TransferBegun:
    """The node begins to send instances of one study, by SOP class and number, to a peer."""

    at: datetime
    study_instance_uid: str
    sop_classes: Mapping[str, int]
    peer: Party


@dataclass(frozen=True, slots=True)
class Transferred:
    """Instances of one study were received from a peer, or sent to it (`sent`).

    `already_held` says that the receiver had every one of them before.
    """

    at: datetime
    study_instance_uid: str
    sop_classes: Mapping[str, int]
    peer: Party
    sent: bool = False
    already_held: bool = False
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    description: str = ""


@dataclass(frozen=True, slots=True)
class StudyAccessed:
    """A person looked at what is held of a study, or at its report."""

    at: datetime
    by: str
    study_instance_uid: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class StudiesListed:
    """A person asked which studies are held; `query` is what was asked."""

    at: datetime
    by: str
    query: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class StudyDeleted:
    """A whole study was removed from this node: by a person, or by the node's retention rules (`by` is empty)."""

    at: datetime
    study_instance_uid: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class AuditLogUsed:
    """A person read the audit trail."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Administered:
    """A person changed a setting or used a function that not everybody should.

    Attributes
    ----------
    action
        What was done, in the words of the command: "bank activate".
    subject
        What it was done to: a bank's name, "work-item/7".
    study_instance_uid
        The study it concerns, if one.
    """

    at: datetime
    by: str
    setting: Setting
    action: str
    subject: str
    study_instance_uid: str = ""
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    description: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class UserAuthenticated:
    """A person logged in or out, or tried to."""

    at: datetime
    by: str
    address: str
    login: bool = True
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    description: str = field(default="")


class StepAction(Enum):
    """What a peer asks of procedure steps, as EventActionCode of PS3.15 A.5.1."""

    CREATE = "C"
    READ = "R"
    CHANGE = "U"
    QUERY = "E"


@dataclass(frozen=True, slots=True)
class StepRequested:
    """A peer asked something of a procedure step (UPS), or searched for some.

    Attributes
    ----------
    what
        In the words of the service: "N-CREATE", "subscribe".
    sop_instance_uid
        The step's, a well-known UID for all, or "" for a search.
    """

    at: datetime
    peer: Party
    action: StepAction
    what: str
    sop_instance_uid: str
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    description: str = ""


AuditEvent = (
    ApplicationActivity
    | AssociationOpened
    | AssociationRejected
    | TransferBegun
    | Transferred
    | StudyAccessed
    | StudiesListed
    | StudyDeleted
    | AuditLogUsed
    | Administered
    | UserAuthenticated
    | StepRequested
)

Audit = Callable[[AuditEvent], None]
"""Takes note of an event; never raises and never waits for another machine."""


def unheard(_event: AuditEvent) -> None:
    """Take note of nothing: the `Audit` of whoever keeps no trail."""
