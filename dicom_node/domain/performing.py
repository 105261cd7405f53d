"""Performing procedure steps of other providers, as values: who offers them, what they ask, how far one is. Pure.

A task is this node's part in one step. Its states and what may follow are data here; `store.tasks` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from dicom_node.domain.errors import IllegalTransitionError
from dicom_node.domain.security import ClientSecurity

Code = tuple[str, str, str]
"""Code value, coding scheme designator, code meaning (PS3.3 section 8.8)."""


class TaskState(StrEnum):
    """How far a task is."""

    CLAIMING = "claiming"
    FETCHING = "fetching"
    WAITING = "waiting"
    DELIVERING = "delivering"
    COMPLETING = "completing"
    CANCELING = "canceling"
    COMPLETED = "completed"
    CANCELED = "canceled"
    LOST = "lost"


FINAL = (TaskState.COMPLETED, TaskState.CANCELED, TaskState.LOST)

_S = TaskState
TRANSITIONS: dict[TaskState, tuple[TaskState, ...]] = {
    _S.CLAIMING: (_S.FETCHING, _S.LOST),
    _S.FETCHING: (_S.WAITING, _S.CANCELING, _S.LOST),
    _S.WAITING: (_S.DELIVERING, _S.CANCELING, _S.LOST),
    _S.DELIVERING: (_S.COMPLETING, _S.CANCELING, _S.LOST),
    _S.COMPLETING: (_S.COMPLETED, _S.CANCELING, _S.LOST),
    _S.CANCELING: (_S.CANCELED, _S.COMPLETED, _S.LOST),
    _S.COMPLETED: (),
    _S.CANCELED: (),
    _S.LOST: (),
}
"""What may follow what; every state that is not final may also stay as it is, to be tried again."""


def check_transition(before: TaskState, after: TaskState) -> None:
    """Raise an IllegalTransitionError if one state does not follow another."""
    if after is not before and after not in TRANSITIONS[before]:
        allowed = ", ".join(TRANSITIONS[before]) or "nothing"
        raise IllegalTransitionError(f"a task that is {before} cannot become {after}; it allows: {allowed}")


@dataclass(frozen=True, slots=True)
class UpsSource:
    """A provider of procedure steps, and which of them are this node's.

    Attributes
    ----------
    work_items, station_names, station_classes
        Code values that an item must name one of; an item that names no station is anybody's. Empty: any.
    archive
        Where the input is fetched from; "" for the one whose AE title the item names.
    wait_for_delivery
        Destinations that must have the report before an item is completed; None for all that it goes to.
    items_at_a_time
        So many are under way at once; others leave the rest to other performers.
    input_attempts
        So often the input is asked for before an item is canceled.
    """

    name: str
    ae_title: str
    host: str
    port: int
    security: ClientSecurity = field(default_factory=ClientSecurity)
    timeout: float = 30.0
    mode: Literal["pull", "subscribe"] = "pull"
    poll_seconds: float = 30.0
    work_items: tuple[str, ...] = ("110004",)
    station_names: tuple[str, ...] = ()
    station_classes: tuple[str, ...] = ()
    archive: str = ""
    wait_for_delivery: tuple[str, ...] | None = None
    items_at_a_time: int = 20
    input_attempts: int = 10


@dataclass(frozen=True, slots=True)
class Step:
    """A procedure step as its provider tells it, without anything of the patient.

    `fault` says what is wrong with its input information; it cannot be performed then.
    """

    sop_instance_uid: str
    state: str
    priority: str = ""
    ready: bool = True
    work_items: tuple[Code, ...] = ()
    station_names: tuple[str, ...] = ()
    station_classes: tuple[str, ...] = ()
    study_instance_uid: str = ""
    series_instance_uids: tuple[str, ...] = ()
    sop_instance_uids: tuple[str, ...] = ()
    retrieve_ae_titles: tuple[str, ...] = ()
    fault: str = ""

    def is_for(self, source: UpsSource) -> bool:
        """Return whether it is scheduled, ready, and meant for this node."""
        return (
            self.state == "SCHEDULED"
            and self.ready
            and _one_of(source.work_items, tuple(code[0] for code in self.work_items), required=True)
            and _one_of(source.station_names, self.station_names, required=False)
            and _one_of(source.station_classes, self.station_classes, required=False)
        )


def _one_of(ours: tuple[str, ...], named: tuple[str, ...], *, required: bool) -> bool:
    if not ours or (not named and not required):
        return True
    return bool(set(ours) & set(named))


@dataclass(frozen=True, slots=True)
class Output:
    """An object that was made, and where it can be had: AE titles and URLs of DICOMweb services."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    ae_titles: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Performed:
    """What a completed step tells (PS3.4 Table CC.2.5-3, column Final State)."""

    station: Code
    work_items: tuple[Code, ...]
    started_at: datetime
    ended_at: datetime
    outputs: tuple[Output, ...]


class Answer(StrEnum):
    """What a provider said to a change (PS3.4 Tables CC.2.1-2 and CC.2.6-1)."""

    DONE = "done"
    ALREADY = "it is in that state already"
    ENDED = "it has ended and may no longer be updated"
    NOT_OURS = "it is performed under another Transaction UID"
    TAKEN = "it is in progress already"
    NOT_BEGUN = "it is not in progress"
    UNMET = "what it tells is not enough for its final state"
    GONE = "there is no such item"


class Session(Protocol):
    """One association to a provider. Every method may raise DestinationAwayError or DestinationRefusedError."""

    def get(self, sop_instance_uid: str) -> Step | None:
        """Return a step, None where there is none."""

    def change_state(self, sop_instance_uid: str, transaction_uid: str, state: str) -> Answer:
        """Ask for "IN PROGRESS", "COMPLETED" or "CANCELED"."""

    def progress(self, sop_instance_uid: str, transaction_uid: str, percent: int, description: str) -> Answer:
        """Tell how far it is."""

    def performed(self, sop_instance_uid: str, transaction_uid: str, what: Performed) -> Answer:
        """Tell what was done."""

    def discontinued(self, sop_instance_uid: str, transaction_uid: str, at: datetime, reason: Code) -> Answer:
        """Tell why it will be canceled."""


class Provider(Protocol):
    """Reaches providers."""

    def scheduled(self, source: UpsSource, most: int) -> list[Step]:
        """Return steps that are meant for this node and scheduled, at most so many, the most urgent first."""

    def subscribe(self, source: UpsSource) -> str:
        """Ask for event reports; return what was subscribed to."""

    @property
    def session(self) -> Callable[[UpsSource], AbstractContextManager[Session]]:
        """Opens an association for the length of a block."""


INPUT_MISSING: Code = ("110523", "DCM", "Object Set incomplete")
INPUT_FAULTY: Code = ("110521", "DCM", "Objects incorrectly formatted")
FAILED: Code = ("110501", "DCM", "Equipment failure")
ASKED: Code = ("110513", "DCM", "Discontinued for unspecified reason")
DISCONTINUED = {code[0]: code for code in (INPUT_MISSING, INPUT_FAULTY, FAILED, ASKED)}
"""Why a step is canceled (PS3.16 CID 9300)."""
