"""Event reports on procedure steps of other providers, as their watcher (PS3.4 section CC.2.4). Knows no database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from pynetdicom import evt
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.events import EventHandlerType

from dicom_node.domain.errors import InvalidIdentifierError, NodeError
from dicom_node.domain.ids import check_uid

UPS_EVENT = "1.2.840.10008.5.1.4.34.6.4"

_CANCEL_REQUESTED, _SCP_STATUS_CHANGE = 2, 4
_KINDS = range(1, 6)
_NO_SUCH_EVENT, _INVALID_INSTANCE, _PROCESSING_FAILURE = 0x0113, 0x0117, 0x0110


class Noted(Protocol):
    """Takes note of an event."""

    def __call__(self, sop_instance_uid: str, *, cancel: bool, restarted: bool) -> None:
        """Note that a step changed, is to be canceled, or that its provider was started anew or is about to end.

        Raises
        ------
        NodeError
            If it cannot be noted now.
        """


class StepEvents:
    """Answers N-EVENT-REPORT on the UPS Event class; `receive.services.Service`."""

    def __init__(self, noted: Noted) -> None:
        self._noted = noted

    @property
    def sop_classes(self) -> frozenset[str]:
        """The one that event reports come on."""
        return frozenset({UPS_EVENT})

    @property
    def handlers(self) -> Sequence[EventHandlerType]:
        """Handlers of pynetdicom's events."""
        handler: Callable[[evt.Event], tuple[int, None]] = self._on_event
        return [(evt.EVT_N_EVENT_REPORT, handler)]

    def _on_event(self, event: evt.Event) -> tuple[int, None]:
        request = cast("N_EVENT_REPORT", event.request)
        if request.EventTypeID not in _KINDS:
            return _NO_SUCH_EVENT, None
        try:
            uid = check_uid(str(request.AffectedSOPInstanceUID or ""))
            kind = request.EventTypeID
            self._noted(uid, cancel=kind == _CANCEL_REQUESTED, restarted=kind == _SCP_STATUS_CHANGE)
        except InvalidIdentifierError:
            return _INVALID_INSTANCE, None
        except NodeError:
            return _PROCESSING_FAILURE, None
        return 0, None
