"""Storage Commitment Push Model (PS3.4 annex J), as its provider and for the answers to this node's own requests.

Owns what a peer may say in it and which status answers that. Whether an object is held, and what follows from an
answer, is for a `Keeper` to say; how a report is read and written is given in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from io import BytesIO
from typing import Any, Protocol, TypeVar, cast

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import decode, encode
from pynetdicom.events import EventHandlerType

from dicom_node.domain.commitment import PUSH_MODEL_INSTANCE, CommitmentRequest, CommitmentResult, Reference
from dicom_node.domain.errors import InvalidIdentifierError, NodeError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.sop_classes import STORAGE_COMMITMENT
from dicom_node.receive.held import HeldDataSet
from dicom_node.receive.messages import EventReport, messages_of
from dicom_node.receive.upper_layer import FAULTS

log = logging.getLogger(__name__)

MOST_REFERENCES = 2000
"""Objects of one request."""

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT = 0x0115
NO_SUCH_ACTION = 0x0123
UNRECOGNISED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213

ACTION_MEANINGS = {
    SUCCESS: "Success: the request is recorded; a report follows",
    PROCESSING_FAILURE: "Processing failure: the Action Information cannot be read",
    NO_SUCH_INSTANCE: "No such SOP instance: it is not the well-known one",
    INVALID_ARGUMENT: "Invalid argument value: no Transaction UID, no reference, or a UID that breaks the syntax",
    NO_SUCH_ACTION: "No such action: the Action Type is not 1",
    UNRECOGNISED_OPERATION: "Unrecognised operation: the peer took the role of the provider only",
    RESOURCE_LIMITATION: f"Resource limitation: more than {MOST_REFERENCES} references or 512 kB, too many requests "
    "open, or the database is away",
}
EVENT_MEANINGS = {
    SUCCESS: "Success: the answer is recorded, or was already",
    PROCESSING_FAILURE: "Processing failure: the Event Information cannot be read",
    NO_SUCH_INSTANCE: "No such SOP instance: it is not the well-known one",
    NO_SUCH_EVENT_TYPE: "No such event type: it is neither 1 nor 2",
    INVALID_ARGUMENT: "Invalid argument value: the Transaction UID is none of this node's",
    UNRECOGNISED_OPERATION: "Unrecognised operation: the peer took the role of the user only",
    RESOURCE_LIMITATION: "Resource limitation: larger than 512 kB, or the database is away",
}
"""PS3.7 sections 10.1.4.1.10 and 10.1.1.1.8, in the sense this node gives them."""

T = TypeVar("T")
_UNREADABLE = (*FAULTS, EOFError)


class Keeper(Protocol):
    """Knows what is held and what was asked of others."""

    def take(self, request: CommitmentRequest) -> CommitmentResult:
        """Record a request for good and return what is committed. Raises NodeError if it cannot be recorded."""

    def told(self, request: CommitmentRequest, status: int | None) -> None:
        """The peer answered the report with a status, or the association ended before (None)."""

    def answered(self, result: CommitmentResult, calling_ae_title: str) -> bool:
        """Record the answer to a request of this node's own; False if there is no such request. Raises NodeError."""


class _RefusedError(Exception):
    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class CommitmentService:
    """Answers N-ACTION and N-EVENT-REPORT.

    Parameters
    ----------
    read_report
        Reads event type and Event Information; raises NodeError if they are no answer.
    write_report
        Returns event type and Event Information.
    clock
        Returns the current moment, timezone-aware.
    """

    def __init__(
        self,
        keeper: Keeper,
        read_report: Callable[[int, Dataset], CommitmentResult],
        write_report: Callable[[CommitmentResult], tuple[int, Dataset]],
        clock: Callable[[], datetime],
    ) -> None:
        self._keeper = keeper
        self._read_report = read_report
        self._write_report = write_report
        self._clock = clock

    @property
    def sop_classes(self) -> frozenset[str]:
        """Storage Commitment Push Model alone."""
        return frozenset({STORAGE_COMMITMENT.uid})

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events on an association."""
        return [(evt.EVT_N_ACTION, self._on_action), (evt.EVT_N_EVENT_REPORT, self._on_event)]

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        return _answered("storage commitment request", event, self._act), None

    def _on_event(self, event: evt.Event) -> tuple[int, None]:
        return _answered("storage commitment answer", event, self._hear), None

    def _act(self, event: evt.Event) -> str:
        command = cast("Any", event.request)
        _check_role(event, as_provider=False)
        _check_instance(command.RequestedSOPInstanceUID)
        if command.ActionTypeID != 1:
            raise _RefusedError(NO_SUCH_ACTION, f"action type {command.ActionTypeID}; 1 is the only one")
        facts = messages_of(event.assoc).link.facts
        transaction_uid, references = _read(lambda: _request(_held(event, command.ActionInformation)))
        request = CommitmentRequest(
            transaction_uid, references, facts.calling, facts.peer_address, self._clock()
        )
        result = self._keeper.take(request)
        self._report(event, request, result)
        return f"{len(result.committed)} of {len(references)} objects committed"

    def _report(self, event: evt.Event, request: CommitmentRequest, result: CommitmentResult) -> None:
        event_type, information = self._write_report(result)
        syntax = UID(event.context.transfer_syntax)
        encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        report = N_EVENT_REPORT()
        report.AffectedSOPClassUID = UID(STORAGE_COMMITMENT.uid)
        report.AffectedSOPInstanceUID = UID(PUSH_MODEL_INSTANCE)
        report.EventTypeID = event_type
        report.EventInformation = BytesIO(encoded or b"")

        def answered(status: int | None) -> None:
            try:
                self._keeper.told(request, status)
            except NodeError as error:  # it is told again later
                log.warning("storage commitment report not recorded", extra={"reason": str(error)})

        messages_of(event.assoc).report(EventReport(report, event.context.context_id, answered))

    def _hear(self, event: evt.Event) -> str:
        command = cast("Any", event.request)
        _check_role(event, as_provider=True)
        _check_instance(command.AffectedSOPInstanceUID)
        event_type = command.EventTypeID
        if event_type not in (1, 2):
            raise _RefusedError(NO_SUCH_EVENT_TYPE, f"event type {event_type}; 1 and 2 are the only ones")
        information = _held(event, command.EventInformation)
        try:
            result = _read(lambda: self._read_report(event_type, information))
            check_uid(result.transaction_uid, "Transaction UID")
        except NodeError as error:
            raise _RefusedError(INVALID_ARGUMENT, str(error)) from error
        if not self._keeper.answered(result, messages_of(event.assoc).link.facts.calling):
            raise _RefusedError(INVALID_ARGUMENT, "its Transaction UID is none that this node waits for")
        return f"{len(result.failed)} of {len(result.failed) + len(result.committed)} objects not committed"


def _answered(what: str, event: evt.Event, handle: Callable[[evt.Event], str]) -> int:
    facts = messages_of(event.assoc).link.facts
    fields: dict[str, object] = {"association_id": facts.id, "calling_ae_title": facts.calling, "what": what}
    try:
        said = handle(event)
    except _RefusedError as error:
        status, why = error.status, str(error)
    except NodeError as error:
        status, why = (RESOURCE_LIMITATION if error.retryable else PROCESSING_FAILURE), str(error)
    else:
        log.info("storage commitment", extra={**fields, "result": said})
        return SUCCESS
    log.warning("storage commitment refused", extra={**fields, "status": f"0x{status:04X}", "reason": why})
    return status


def _read(read: Callable[[], T]) -> T:
    """Return what `read` returns; what hostile bytes do to the library becomes a refusal that quotes none of them."""
    try:
        return read()
    except _UNREADABLE as error:
        raise _RefusedError(
            PROCESSING_FAILURE, f"its data set cannot be read ({type(error).__name__})"
        ) from error


def _held(event: evt.Event, held: Any) -> Dataset:
    if not isinstance(held, HeldDataSet) or not held.getbuffer().nbytes:
        raise _RefusedError(INVALID_ARGUMENT, "it has no data set; Transaction UID and references stand in it")
    if held.too_large:
        raise _RefusedError(RESOURCE_LIMITATION, "its data set is larger than 512 kB")
    syntax = UID(event.context.transfer_syntax)
    return _read(lambda: decode(held, syntax.is_implicit_VR, syntax.is_little_endian))


def _request(information: Dataset) -> tuple[str, tuple[Reference, ...]]:
    """Read an Action Information (PS3.4 table J.3-1)."""
    items = information.get("ReferencedSOPSequence") or ()
    if not items:
        raise _RefusedError(INVALID_ARGUMENT, "it references no object")
    if len(items) > MOST_REFERENCES:
        raise _RefusedError(
            RESOURCE_LIMITATION, f"it references {len(items)} objects; {MOST_REFERENCES} may be"
        )
    try:
        transaction_uid = check_uid(str(information.get("TransactionUID", "")), "Transaction UID")
        references = tuple(
            Reference(
                check_uid(str(item.get("ReferencedSOPClassUID", "")), "Referenced SOP Class UID"),
                check_uid(str(item.get("ReferencedSOPInstanceUID", "")), "Referenced SOP Instance UID"),
            )
            for item in items
        )
    except InvalidIdentifierError as error:
        raise _RefusedError(INVALID_ARGUMENT, str(error)) from error
    return transaction_uid, references


def _check_instance(uid: Any) -> None:
    if str(uid) != PUSH_MODEL_INSTANCE:
        raise _RefusedError(NO_SUCH_INSTANCE, f"another SOP instance than {PUSH_MODEL_INSTANCE}")


def _check_role(event: evt.Event, *, as_provider: bool) -> None:
    """Hold a peer to the role it took, if it took one (PS3.7 annex D.3.3.4); many archives take none."""
    selection = event.assoc.requestor.role_selection.get(UID(STORAGE_COMMITMENT.uid))
    if selection is None:
        return
    if not (selection.scp_role if as_provider else selection.scu_role):
        role = "provider (SCP)" if as_provider else "user (SCU)"
        raise _RefusedError(UNRECOGNISED_OPERATION, f"the peer did not take the role of the {role}")
