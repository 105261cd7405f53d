"""Unified Procedure Steps as their provider (PS3.4 annex CC): Push, Pull, Watch and Query.

Owns how requests are read and answered on an association. What they come to is for a `Keeper` to say. Peers that
propose nothing else than Verification and these classes store nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol, cast

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.dsutils import decode, encode
from pynetdicom.events import EventHandlerType

from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.audit import Audit, AuditOutcome, Party, StepAction, StepRequested
from dicom_node.domain.errors import InvalidIdentifierError, NodeError, StepRefusedError
from dicom_node.domain.ids import check_ae_title, check_uid
from dicom_node.domain.sop_classes import UPS_PULL, UPS_PUSH, UPS_QUERY, UPS_WATCH
from dicom_node.receive.held import HeldDataSet
from dicom_node.receive.messages import messages_of
from dicom_node.receive.status import error_comment
from dicom_node.receive.upper_layer import FAULTS

log = logging.getLogger(__name__)

_PENDING, _CANCEL, _UNABLE = 0xFF00, 0xFE00, 0xC000
_OUT_OF_RESOURCES = 0xA700
_UNREADABLE = (*FAULTS, EOFError)
_ACTIONS = {
    UPS_PUSH.uid: {ups.REQUEST_CANCEL},
    UPS_PULL.uid: {ups.CHANGE_STATE},
    UPS_WATCH.uid: {ups.REQUEST_CANCEL, ups.SUBSCRIBE, ups.UNSUBSCRIBE, ups.SUSPEND_GLOBAL},
}
"""PS3.4 table CC.2-1."""


class Keeper(Protocol):
    """Has the steps. Each method raises StepRefusedError, or another NodeError where the node itself cannot."""

    def create(self, uid: str, asked: Dataset, calling_ae_title: str) -> str: ...  # noqa: D102
    def get(self, uid: str) -> Dataset: ...  # noqa: D102
    def find(self, keys: Dataset) -> Iterator[Dataset]: ...  # noqa: D102
    def set(self, uid: str, changes: Dataset) -> None: ...  # noqa: D102
    def change_state(self, uid: str, state: str, transaction_uid: str) -> int: ...  # noqa: D102
    def request_cancel(self, uid: str, said: Dataset, calling_ae_title: str) -> int: ...  # noqa: D102


class Watchers(Protocol):
    """Has the subscriptions; raises as a `Keeper`. `said` is the Action Information."""

    def subscribe(self, uid: str, said: Dataset, ae_title: str, peer_address: str) -> int: ...  # noqa: D102
    def unsubscribe(self, uid: str, ae_title: str, peer_address: str) -> int: ...  # noqa: D102
    def suspend(self, uid: str, ae_title: str) -> int: ...  # noqa: D102


class ProcedureStepService:
    """Answers N-CREATE, N-GET, N-SET, N-ACTION and C-FIND of the UPS SOP classes."""

    def __init__(self, keeper: Keeper, watchers: Watchers, audit: Audit, clock: Callable[[], datetime]) -> None:
        self._keeper = keeper
        self._watchers = watchers
        self._audit = audit
        self._clock = clock

    @property
    def sop_classes(self) -> frozenset[str]:
        """Push, Pull, Watch and Query; events go out on associations of the node's own."""
        return frozenset({UPS_PUSH.uid, UPS_PULL.uid, UPS_WATCH.uid, UPS_QUERY.uid})

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events."""
        return [
            (evt.EVT_N_CREATE, lambda event: self._answered(StepAction.CREATE, event, self._create)),
            (evt.EVT_N_GET, lambda event: self._answered(StepAction.READ, event, self._get)),
            (evt.EVT_N_SET, lambda event: self._answered(StepAction.CHANGE, event, self._set)),
            (evt.EVT_N_ACTION, lambda event: self._answered(StepAction.CHANGE, event, self._act)),
            (evt.EVT_C_FIND, self._find),
        ]

    def _create(self, event: evt.Event) -> tuple[int, Dataset | None]:
        command = cast("Any", event.request)
        stated = str(command.AffectedSOPInstanceUID or "")
        asked = _data_set(event, command.AttributeList)
        uid = self._keeper.create(_checked(stated) if stated else "", asked, _calling(event))
        created = Dataset()
        if not stated:
            created.AffectedSOPInstanceUID = uid
        return 0, created

    def _get(self, event: evt.Event) -> tuple[int, Dataset | None]:
        command = cast("Any", event.request)
        ds = self._keeper.get(_checked(command.RequestedSOPInstanceUID))
        wanted = command.AttributeIdentifierList
        if wanted is not None and wanted != []:
            tags = {BaseTag(int(tag)) for tag in (wanted if hasattr(wanted, "__iter__") else [wanted])}
            chosen = Dataset()
            for element in ds:
                if element.tag in tags or element.keyword == "SpecificCharacterSet":
                    chosen.add(element)
            ds = chosen
        return 0, ds

    def _set(self, event: evt.Event) -> tuple[int, Dataset | None]:
        command = cast("Any", event.request)
        uid = _checked(command.RequestedSOPInstanceUID)
        self._keeper.set(uid, _data_set(event, command.ModificationList))
        return 0, None

    def _act(self, event: evt.Event) -> tuple[int, Dataset | None]:
        command = cast("Any", event.request)
        action, uid = command.ActionTypeID, _checked(command.RequestedSOPInstanceUID)
        if action not in _ACTIONS.get(str(event.context.abstract_syntax), set()):
            raise StepRefusedError(ups.NO_SUCH_ACTION, f"action type {action} is none of this SOP class")
        facts = messages_of(event.assoc).link.facts
        if action == ups.REQUEST_CANCEL:
            said = _data_set(event, command.ActionInformation, optional=True)
            return self._keeper.request_cancel(uid, said, facts.calling), None
        said = _data_set(event, command.ActionInformation)
        if action == ups.CHANGE_STATE:
            state, transaction = (
                str(said.get("ProcedureStepState") or ""),
                str(said.get("TransactionUID") or ""),
            )
            return self._keeper.change_state(uid, state, transaction), None
        try:
            receiver = check_ae_title(str(said.get("ReceivingAE") or ""), "Receiving AE")
        except InvalidIdentifierError as error:  # whose words quote what came: anything may come
            raise StepRefusedError(ups.INVALID_ARGUMENT, "the Receiving AE is no AE title") from error
        if receiver != facts.calling:  # nobody subscribes, or ends subscriptions, for somebody else
            raise StepRefusedError(ups.NOT_AUTHORISED, "the Receiving AE is another than the one that asks")
        if action == ups.SUBSCRIBE:
            return self._watchers.subscribe(uid, said, receiver, facts.peer_address), None
        if action == ups.SUSPEND_GLOBAL:
            return self._watchers.suspend(uid, receiver), None
        return self._watchers.unsubscribe(uid, receiver, facts.peer_address), None

    def _find(self, event: evt.Event) -> Iterator[tuple[Any, Dataset | None]]:
        command = cast("Any", event.request)
        answers = 0
        try:
            for found in self._keeper.find(_data_set(event, command.Identifier)):
                if event.is_cancelled:
                    self._told(event, StepAction.QUERY, "", _CANCEL, f"{answers} answers")
                    yield _CANCEL, None
                    return
                answers += 1
                yield _PENDING, _encodable(event, found)
        except StepRefusedError as error:
            self._told(event, StepAction.QUERY, "", _UNABLE, str(error))
            yield _status(_UNABLE, str(error)), None
        except NodeError as error:
            self._told(event, StepAction.QUERY, "", _OUT_OF_RESOURCES, str(error))
            yield _status(_OUT_OF_RESOURCES, str(error)), None
        else:
            self._told(event, StepAction.QUERY, "", 0, f"{answers} answers")

    def _answered(
        self,
        action: StepAction,
        event: evt.Event,
        handle: Callable[[evt.Event], tuple[int, Dataset | None]],
    ) -> tuple[Any, Dataset | None]:
        command = cast("Any", event.request)
        stated = "AffectedSOPInstanceUID" if action is StepAction.CREATE else "RequestedSOPInstanceUID"
        uid = str(getattr(command, stated) or "")
        try:
            status, ds = handle(event)
            ds = None if ds is None else _encodable(event, ds)
        except StepRefusedError as error:
            status, why = error.status, str(error)
        except NodeError as error:
            status, why = (ups.RESOURCE_LIMITATION if error.retryable else ups.PROCESSING_FAILURE), str(error)
        else:
            self._told(event, action, uid, status, "")
            return status, ds
        self._told(event, action, uid, status, why)
        return _status(status, why), None

    def _told(self, event: evt.Event, action: StepAction, uid: str, status: int, why: str) -> None:
        """Log a request and what it came to, and have it in the audit trail."""
        what, facts = _named(event), messages_of(event.assoc).link.facts
        log.info(
            "procedure steps",
            extra={
                "association_id": facts.id,
                "calling_ae_title": facts.calling,
                "what": what,
                "status": f"0x{status:04X}",
                "reason": why,
            },
        )
        refused = 0 < status < 0xB000 or status >> 12 == 0xC
        outcome = AuditOutcome.MINOR_FAILURE if refused else AuditOutcome.SUCCESS
        peer = Party(facts.calling, facts.peer_address)
        said = f"0x{status:04X} {why}".strip() if status or why else ""
        named = uid if _is_uid(uid) else ""  # anything may come in its place
        self._audit(StepRequested(self._clock(), peer, action, what, named, outcome, said))


def _named(event: evt.Event) -> str:
    name = event.event.name.removeprefix("EVT_").replace("_", "-")
    if name != "N-ACTION":
        return name
    return ups.ACTIONS.get(cast("Any", event.request).ActionTypeID, name)


def _is_uid(text: str) -> bool:
    try:
        return bool(check_uid(text))
    except InvalidIdentifierError:
        return False


def _status(status: int, why: str) -> Dataset:
    ds = Dataset()
    ds.Status, ds.ErrorComment = status, error_comment(why)
    return ds


def _calling(event: evt.Event) -> str:
    return messages_of(event.assoc).link.facts.calling


def _checked(uid: Any) -> str:
    try:
        return check_uid(str(uid or ""), "SOP Instance UID")
    except InvalidIdentifierError as error:
        raise StepRefusedError(ups.INVALID_INSTANCE, str(error)) from error


def _data_set(event: evt.Event, held: Any, *, optional: bool = False) -> Dataset:
    """Return what came with a request, decoded whole, so that hostile bytes fail here and nowhere else."""
    if not isinstance(held, HeldDataSet) or not held.getbuffer().nbytes:
        if optional:
            return Dataset()
        raise StepRefusedError(ups.MISSING_ATTRIBUTE, "there is no data set")
    if held.too_large:
        raise StepRefusedError(ups.RESOURCE_LIMITATION, "the data set is larger than 512 kB")
    syntax = UID(event.context.transfer_syntax)
    try:
        ds = decode(held, syntax.is_implicit_VR, syntax.is_little_endian)
        for element in ds.iterall():
            if element.VR != "SQ":
                str(element.value)
    except _UNREADABLE as error:
        raise StepRefusedError(
            ups.PROCESSING_FAILURE, f"the data set cannot be read ({type(error).__name__})"
        ) from error
    return ds


def _encodable(event: evt.Event, ds: Dataset) -> Dataset:
    syntax = UID(event.context.transfer_syntax)
    try:
        encoded = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian)
    except _UNREADABLE as error:
        raise StepRefusedError(
            ups.PROCESSING_FAILURE, f"the step cannot be encoded ({type(error).__name__})"
        ) from error
    if encoded is None:
        raise StepRefusedError(ups.PROCESSING_FAILURE, "the step cannot be encoded")
    return ds
