"""Unified Procedure Steps as values (PS3.4 annex CC): states, statuses, well-known UIDs. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import NAMESPACE_OID, uuid5

from dicom_node.domain.states import State

SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED = "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED"
STATES = frozenset({SCHEDULED, IN_PROGRESS, COMPLETED, CANCELED})
FINAL = frozenset({COMPLETED, CANCELED})

OF_ITEM = {
    State.SCHEDULED: SCHEDULED,
    State.IN_PROGRESS: IN_PROGRESS,
    State.COMPLETED: COMPLETED,
    State.CANCELED: CANCELED,
    State.FAILED: CANCELED,
}
"""The step's state by the work item's. FAILED is CANCELED with a coded reason: the standard has no other word."""

GLOBAL = "1.2.840.10008.5.1.4.34.5"
FILTERED_GLOBAL = "1.2.840.10008.5.1.4.34.5.1"
"""Well-known instances that subscriptions to all steps name (PS3.4 section CC.2.3)."""
EVERYTHING = frozenset({GLOBAL, FILTERED_GLOBAL})

CHANGE_STATE, REQUEST_CANCEL, SUBSCRIBE, UNSUBSCRIBE, SUSPEND_GLOBAL = 1, 2, 3, 4, 5
ACTIONS = {
    CHANGE_STATE: "change state",
    REQUEST_CANCEL: "request cancel",
    SUBSCRIBE: "subscribe",
    UNSUBSCRIBE: "unsubscribe",
    SUSPEND_GLOBAL: "suspend subscription",
}
"""Action types (PS3.4 tables CC.2.1-1, CC.2.2-1, CC.2.3-1)."""

STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT, SCP_STATUS_CHANGE, ASSIGNED = 1, 2, 3, 4, 5
"""Event types (PS3.4 table CC.2.4-1)."""

RESTARTED, GOING_DOWN = "RESTARTED", "GOING DOWN"
"""SCP Status of an SCP Status Change."""

INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE = 0x0111
INVALID_ARGUMENT = 0x0115
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
MISSING_VALUE = 0x0121
NO_SUCH_ACTION = 0x0123
NOT_AUTHORISED = 0x0124
RESOURCE_LIMITATION = 0x0213
"""General statuses of N-services (PS3.7 annex C)."""

DELETION_LOCK_NOT_GRANTED = 0xB301  # table CC.2.3-3
ALREADY_CANCELED = 0xB304  # table CC.2.2-2; CC.2.1-2 has it too, for performers
NO_LONGER_UPDATED = 0xC300  # tables CC.2.1-2, CC.2.6-1
WRONG_TRANSACTION = 0xC301  # tables CC.2.1-2, CC.2.6-1
ALREADY_IN_PROGRESS = 0xC302  # table CC.2.1-2
ONLY_BY_CREATION = 0xC303  # table CC.2.1-2
NO_SUCH_STEP = 0xC307  # tables CC.2.1-2, CC.2.2-2, CC.2.3-3, CC.2.6-1, and for N-GET
RECEIVER_UNKNOWN = 0xC308  # table CC.2.3-3
NOT_CREATED_SCHEDULED = 0xC309  # section CC.2.5.4
NOT_YET_IN_PROGRESS = 0xC310  # tables CC.2.1-2, CC.2.6-1
IS_COMPLETED = 0xC311  # table CC.2.2-2
WILL_NOT_CANCEL = 0xC313  # table CC.2.2-2
NOT_FOR_THIS_INSTANCE = 0xC314  # table CC.2.3-3
"""Statuses of this service (PS3.4 annex CC). B300 and B305 cannot occur, nothing is modified; nor B306, C304, C312 and
C315: nobody else performs the node's steps, the performer is here, and event reports are sent."""

MEANINGS = {
    0x0000: "Success",
    INVALID_VALUE: "Invalid attribute value: a UID, date, state or priority that breaks the syntax",
    PROCESSING_FAILURE: "Processing failure: the data set cannot be read",
    DUPLICATE: "Duplicate SOP instance: a step of that UID is known",
    INVALID_ARGUMENT: "Invalid argument value: the Action Information lacks what the action needs",
    INVALID_INSTANCE: "Invalid object instance: the SOP Instance UID breaks the syntax",
    MISSING_ATTRIBUTE: "Missing attribute: one that PS3.4 table CC.2.5-3 requires, or all matching keys of a filter",
    MISSING_VALUE: "Missing attribute value: a required one is empty",
    NO_SUCH_ACTION: "No such action",
    NOT_AUTHORISED: "Not authorised: the node itself performs its steps; nobody else claims them",
    0x0211: "Unrecognised operation: the SOP class of the context has no such service",
    RESOURCE_LIMITATION: "Resource limitation: larger than 512 kB, too many steps or subscriptions, or no database",
    DELETION_LOCK_NOT_GRANTED: "Warning: subscribed without a deletion lock: disk full, or 10 000 steps are locked",
    ALREADY_CANCELED: "Warning: the step is CANCELED already",
    NO_LONGER_UPDATED: "The step is COMPLETED or CANCELED and may not be changed any more",
    WRONG_TRANSACTION: "The correct Transaction UID was not provided; only the node has it",
    ALREADY_IN_PROGRESS: "The step is IN PROGRESS already",
    ONLY_BY_CREATION: "A step becomes SCHEDULED by N-CREATE only",
    NO_SUCH_STEP: "No step of this node has that SOP Instance UID",
    RECEIVER_UNKNOWN: "The receiving AE is unknown: no port is configured for it in receive.peers or as a destination",
    NOT_CREATED_SCHEDULED: "The Procedure Step State of a new step was not SCHEDULED",
    NOT_YET_IN_PROGRESS: "The step is not IN PROGRESS yet",
    IS_COMPLETED: "The step is COMPLETED already",
    WILL_NOT_CANCEL: "The performer, this node, chooses not to cancel: the analysis has begun and ends by itself",
    NOT_FOR_THIS_INSTANCE: "The action is not appropriate for the specified instance",
}
"""Of both, in the sense this node gives them."""

MOST_STEPS = 10_000
"""Steps of others that may wait at a time."""
MOST_SUBSCRIPTIONS = 1_000
MOST_ANSWERS = 500
"""Of one C-FIND."""
MOST_LOCKED = 10_000
"""Ended steps that deletion locks hold beyond their time."""
LOCKED_FOR = timedelta(days=365)
"""A deletion lock holds a step no longer than this after it ended: a subscriber that is gone unlocks nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes
    ----------
    digest
        Finds the data set that its creator sent; "" for a step that the node made itself.
    attempts
        How often its analysis was begun; until its input is here, how often that was asked for.
    """

    sop_instance_uid: str
    study_instance_uid: str
    work_item_id: int | None
    revision: int | None
    state: str
    priority: int
    digest: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    updated_at: datetime
    reason: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class StepEvent:
    """An event that a subscriber is owed (PS3.4 table CC.2.4-1), as things were when it happened.

    Attributes
    ----------
    kind
        Event type.
    state
        Of the step; of an SCP Status Change, SCP Status.
    progress
        Of a Progress Report, in percent; `reason` describes it.
    requesting_ae, digest
        Of a Cancel Requested: who asked, and which file has what he said; "" if nothing.
    filter_digest
        File of the matching keys without which it is not told; "" if it is told anyway.
    """

    id: int
    ae_title: str
    sop_instance_uid: str
    kind: int
    state: str
    ready: bool
    reason: str
    progress: int
    requesting_ae: str
    digest: str
    filter_digest: str
    at: datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who watches: a step, or by a well-known UID all of them (PS3.4 table CC.2.3-2)."""

    ae_title: str
    sop_instance_uid: str
    peer_address: str
    filter_digest: str
    wanted: bool
    lock: bool
    until: datetime | None


def own_uid(device_uid: str, item_id: int, generation: int) -> str:
    """Return the UID of the step that stands for a work item, the n-th time that the item is scheduled."""
    return f"2.25.{uuid5(NAMESPACE_OID, f'{device_uid}/step/{item_id}/{generation}').int}"


def progress_description(percent: int, attempts: int) -> str:
    """Return Procedure Step Progress Description of an analysis that was begun for the n-th time."""
    if percent == 100:
        return "the analysis is done"
    return f"attempt {attempts} of the analysis" if attempts > 1 else "the analysis has begun"
