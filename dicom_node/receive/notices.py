"""Modality Performed Procedure Step (PS3.4 annex F) and Instance Availability Notification (annex R), as provider.

Owns what a peer may say in them and which status answers that. What follows is for a `Ledger`. Of a data set only
UIDs and the state are read: the patient's attributes in it are dropped with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dsutils import decode
from pynetdicom.events import EventHandlerType

from dicom_node.domain.errors import InvalidIdentifierError, NodeError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.notices import Available, Ledger, Noted, Performed, StepState
from dicom_node.domain.sop_classes import IAN, MPPS, STORAGE_CLASSES
from dicom_node.receive.held import HeldDataSet
from dicom_node.receive.messages import messages_of
from dicom_node.receive.upper_layer import FAULTS

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_IMAGES = 2000
"""Images that one message may name; a chest study has a few."""

SUCCESS = 0x0000
INVALID_VALUE = 0x0106
PROCESSING_FAILURE = 0x0110
DUPLICATE_INSTANCE = 0x0111
NO_SUCH_INSTANCE = 0x0112
INVALID_INSTANCE = 0x0117
MISSING_ATTRIBUTE = 0x0120
RESOURCE_LIMITATION = 0x0213

STATUSES = {
    SUCCESS: "Success: it is recorded",
    INVALID_VALUE: "Invalid attribute value: a UID that breaks the syntax, or a state that is none here",
    PROCESSING_FAILURE: "Processing failure: the data set cannot be read, or the step has ended before",
    DUPLICATE_INSTANCE: "Duplicate SOP instance: it was created before",
    NO_SUCH_INSTANCE: "No such SOP instance: the step was never created here",
    INVALID_INSTANCE: "Invalid object instance: the command names no SOP Instance UID, or one that breaks the syntax",
    MISSING_ATTRIBUTE: "Missing attribute: the message says which study, and a performed step in which state it is",
    RESOURCE_LIMITATION: f"Resource limitation: larger than 512 kB, more than {MOST_IMAGES} images, or the database is "
    "away",
}
"""PS3.7 sections 10.1.3.1.9 and 10.1.5.1.6, in the sense this node gives them."""

_TAKEN = frozenset(entry.uid for entry in STORAGE_CLASSES)
_UNREADABLE = (*FAULTS, EOFError)
_FAILED = {
    Noted.KNOWN_ALREADY: (DUPLICATE_INSTANCE, "it was created before"),
    Noted.NEVER_HEARD_OF: (NO_SUCH_INSTANCE, "it was never created here"),
    Noted.OVER: (PROCESSING_FAILURE, "it has ended, and may no longer be updated (PS3.4 section F.7.2.2.2)"),
}


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class PerformedSteps:
    """Answers N-CREATE and N-SET of modalities' performed steps; `services.Service`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @property
    def sop_classes(self) -> frozenset[str]:
        """Modality Performed Procedure Step alone."""
        return frozenset({MPPS.uid})

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events on an association."""
        return [(evt.EVT_N_CREATE, self._on_create), (evt.EVT_N_SET, self._on_set)]

    def _on_create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        def take() -> Noted:
            command = cast("Any", event.request)
            uid = _instance(command.AffectedSOPInstanceUID)
            return self._ledger.begun(_read(event, command.AttributeList, lambda ds: _begun(uid, ds)))

        return _answered("performed step begun", event, take)

    def _on_set(self, event: evt.Event) -> tuple[int, Dataset | None]:
        def take() -> Noted:
            command = cast("Any", event.request)
            uid = _instance(command.RequestedSOPInstanceUID)
            return self._ledger.went_on(_read(event, command.ModificationList, lambda ds: _went_on(uid, ds)))

        return _answered("performed step", event, take)


class AvailabilityNotices:
    """Answers N-CREATE of Instance Availability Notifications; `services.Service`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @property
    def sop_classes(self) -> frozenset[str]:
        """Instance Availability Notification alone."""
        return frozenset({IAN.uid})

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events on an association."""
        return [(evt.EVT_N_CREATE, self._on_create)]

    def _on_create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        def take() -> Noted:
            command = cast("Any", event.request)
            uid = _instance(command.AffectedSOPInstanceUID)
            return self._ledger.available(_read(event, command.AttributeList, lambda ds: _available(uid, ds)))

        return _answered("instances available", event, take)


def _answered(what: str, event: evt.Event, take: Callable[[], Noted]) -> tuple[int, Dataset | None]:
    facts = messages_of(event.assoc).link.facts
    fields: dict[str, object] = {"association_id": facts.id, "calling_ae_title": facts.calling, "what": what}
    try:
        noted = take()
    except _RefusedError as error:
        status, why = error.status, str(error)
    except NodeError as error:
        status, why = (RESOURCE_LIMITATION if error.retryable else PROCESSING_FAILURE), str(error)
    else:
        if noted is Noted.DONE:
            log.info("notice taken", extra=fields)
            return SUCCESS, Dataset()
        status, why = _FAILED[noted]
    log.warning("notice refused", extra={**fields, "status": f"0x{status:04X}", "reason": why})
    return status, None


def _instance(uid: Any) -> str:
    try:
        return check_uid(str(uid or ""), "SOP Instance UID")
    except InvalidIdentifierError as error:
        raise _RefusedError(INVALID_INSTANCE, str(error)) from error


def _read(event: evt.Event, held: Any, read: Callable[[Dataset], T]) -> T:
    """Return what `read` makes of the data set; what hostile bytes do to the library becomes a refusal."""
    if not isinstance(held, HeldDataSet) or not held.getbuffer().nbytes:
        raise _RefusedError(MISSING_ATTRIBUTE, "it has no data set")
    if held.too_large:
        raise _RefusedError(RESOURCE_LIMITATION, "its data set is larger than 512 kB")
    syntax = UID(event.context.transfer_syntax)
    try:
        return read(decode(held, syntax.is_implicit_VR, syntax.is_little_endian))
    except InvalidIdentifierError as error:
        raise _RefusedError(INVALID_VALUE, str(error)) from error
    except _UNREADABLE as error:
        raise _RefusedError(
            PROCESSING_FAILURE, f"its data set cannot be read ({type(error).__name__})"
        ) from error


def _begun(uid: str, ds: Dataset) -> Performed:
    """Read an N-CREATE (PS3.4 table F.7.2-1)."""
    if _state(ds, required=True) != "IN PROGRESS":
        raise _RefusedError(INVALID_VALUE, 'a step is created with the status "IN PROGRESS", and no other')
    steps = ds.get("ScheduledStepAttributesSequence") or ()
    if not 1 <= len(steps) <= MOST_IMAGES:
        raise _RefusedError(
            MISSING_ATTRIBUTE, "Scheduled Step Attributes Sequence has no item; one names the study"
        )
    studies = frozenset(_study(step) for step in steps)
    return Performed(uid, studies, "IN PROGRESS", _performed_images(ds))


def _went_on(uid: str, ds: Dataset) -> Performed:
    """Read an N-SET (PS3.4 table F.7.2-1)."""
    return Performed(uid, state=_state(ds, required=False), images=_performed_images(ds))


def _available(uid: str, ds: Dataset) -> Available:
    """Read a notification (PS3.4 table R.3.2-1). What is not available anywhere will not come, and is left out."""
    study = _study(ds)
    if not ds.get("ReferencedSeriesSequence"):
        raise _RefusedError(MISSING_ATTRIBUTE, "Referenced Series Sequence has no item")
    return Available(uid, study, _images(ds.ReferencedSeriesSequence, "ReferencedSOPSequence"))


def _state(ds: Dataset, *, required: bool) -> StepState | None:
    said = str(ds.get("PerformedProcedureStepStatus") or "").strip()
    if said in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
        return cast("StepState", said)
    if said:
        raise _RefusedError(
            INVALID_VALUE, "Performed Procedure Step Status is none of IN PROGRESS, COMPLETED, DISCONTINUED"
        )
    if required:
        raise _RefusedError(MISSING_ATTRIBUTE, "Performed Procedure Step Status is missing")
    return None


def _study(ds: Dataset) -> str:
    said = str(ds.get("StudyInstanceUID") or "")
    if not said:
        raise _RefusedError(MISSING_ATTRIBUTE, "Study Instance UID is missing")
    return check_uid(said, "Study Instance UID")


def _performed_images(ds: Dataset) -> frozenset[str] | None:
    if "PerformedSeriesSequence" not in ds:
        return None
    return _images(ds.PerformedSeriesSequence or (), "ReferencedImageSequence")


def _images(series: Sequence[Dataset], keyword: str) -> frozenset[str]:
    """Return the SOP Instance UIDs of what this node takes: reports and presentation states never come."""
    images: set[str] = set()
    seen = 0
    for one in series:
        items = one.get(keyword) or ()
        seen += len(items)
        if seen > MOST_IMAGES:
            raise _RefusedError(RESOURCE_LIMITATION, f"it names more than {MOST_IMAGES} images")
        for item in items:
            uid = check_uid(str(item.get("ReferencedSOPInstanceUID") or ""), "Referenced SOP Instance UID")
            sop_class = str(item.get("ReferencedSOPClassUID") or "")
            if sop_class in _TAKEN and item.get("InstanceAvailability") != "UNAVAILABLE":
                images.add(uid)
    return frozenset(images)
