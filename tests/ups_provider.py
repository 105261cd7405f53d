"""A provider of Unified Procedure Steps, written from PS3.4 Annex CC only, with faults that a test asks for.

In memory, by pynetdicom. It imports nothing of the product.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_role, evt

PUSH, WATCH, PULL, EVENT = (f"1.2.840.10008.5.1.4.34.6.{n}" for n in (1, 2, 3, 4))
SUBSCRIPTIONS = ("1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1")


def item(number: int, study: str, *, ae_title: str = "ARCHIVE", priority: str = "MEDIUM") -> Dataset:
    """Return a scheduled step that asks for CAD of a study."""
    ds = Dataset()
    ds.SOPClassUID = PUSH
    ds.SOPInstanceUID = f"2.25.77{number}"
    ds.ProcedureStepState = "SCHEDULED"
    ds.InputReadinessState = "READY"
    ds.ScheduledProcedureStepPriority = priority
    ds.PatientName = "Grünwald^Marked"
    ds.ScheduledWorkitemCodeSequence = [code("110004", "DCM", "Computer Aided Detection")]
    place, source = Dataset(), Dataset()
    place.RetrieveAETitle = ae_title
    source.StudyInstanceUID = study
    source.DICOMRetrievalSequence = [place]
    ds.InputInformationSequence = [source]
    return ds


def code(value: str, scheme: str, meaning: str) -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


@dataclass
class Held:
    """An item, the Transaction UID it was claimed under, and the states it went through."""

    ds: Dataset
    transaction: str = ""
    went: list[str] = field(default_factory=lambda: ["SCHEDULED"])
    progress: list[str] = field(default_factory=list)


STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT, STATUS_CHANGE, ASSIGNED = range(1, 6)
"""Event types (PS3.4 Table CC.2.4-1)."""


@dataclass
class UpsProvider:
    """`fault` is asked before and after each request with what it is ("C-FIND", "N-SET", "IN PROGRESS"...) and when.

    It returns a status to answer without doing anything ("before") or after doing it ("after"), "abort" to end the
    association, "silence" to say nothing for a second, or None.

    Attributes
    ----------
    filters, watched
        Whether it takes filtered subscriptions, and any at all.
    grants_twice
        It lets a step be claimed that is in progress already, as one without a lock would.
    listeners
        Ports of those who subscribe, by AE title: without one nobody is told anything.
    users
        Passcodes by user; None to ask nobody who it is.
    """

    items: dict[str, Held] = field(default_factory=dict)
    fault: Callable[[str, str], int | str | None] = lambda _what, _when: None
    subscribers: list[tuple[str, str]] = field(default_factory=list)
    filters: bool = True
    watched: bool = True
    grants_twice: bool = False
    listeners: dict[str, int] = field(default_factory=dict)
    users: dict[str, str] | None = None
    port: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, *steps: Dataset) -> None:
        """Schedule steps, and tell those who watch."""
        for ds in steps:
            self.items[str(ds.SOPInstanceUID)] = Held(ds)
            self.tell_state(str(ds.SOPInstanceUID))

    def state(self, uid: str) -> str:
        return str(self.items[uid].ds.ProcedureStepState)

    def tell_state(self, uid: str) -> list[int]:
        """Send a State Report."""
        ds = self.items[uid].ds
        return self.tell(
            uid,
            STATE_REPORT,
            ProcedureStepState=ds.ProcedureStepState,
            InputReadinessState=ds.InputReadinessState,
        )

    def ask_to_cancel(self, uid: str) -> list[int]:
        """Tell that somebody wants a step to be canceled (PS3.4 section CC.2.2)."""
        return self.tell(
            uid, CANCEL_REQUESTED, RequestingAE="DESK", ReasonForCancellation="Ordered for another person"
        )

    def tell(self, uid: str, kind: int, **said: object) -> list[int]:
        """Send an event to each who watches, on an association of its own; return what they answered."""
        told = Dataset()
        for keyword, value in said.items():
            setattr(told, keyword, value)
        return [
            self._report(title, uid, kind, told) for title in dict(self.subscribers) if title in self.listeners
        ]

    def _report(self, title: str, uid: str, kind: int, told: Dataset) -> int:
        entity = AE("MANAGER")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(EVENT)
        port, role = self.listeners[title], build_role(EVENT, scp_role=True)
        association = entity.associate("127.0.0.1", port, ae_title=title, ext_neg=[role])
        assert association.is_established, f"{title} takes no events on port {port}"
        status, _ = association.send_n_event_report(told, kind, PUSH, uid, meta_uid=EVENT)
        association.release()
        return int(status.Status)

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        wrong = self._wrong(event, "C-FIND", "before")
        if wrong is not None:
            yield wrong, None
            return
        with self._lock:
            matches = [
                held.ds
                for held in self.items.values()
                if event.identifier.get("ProcedureStepState") in (None, "", held.ds.ProcedureStepState)
            ]
        for ds in matches:
            yield 0xFF00, ds

    def _guarded(self, event: Any, what: str, do: Callable[[], tuple[int, Any]]) -> tuple[int, Any]:
        wrong = self._wrong(event, what, "before")
        if wrong is not None:
            return wrong, None
        with self._lock:
            done = do()
        wrong = self._wrong(event, what, "after")
        return done if wrong is None else (wrong, None)

    def _wrong(self, event: Any, what: str, when: str) -> int | None:
        wrong = self.fault(what, when)
        if wrong == "abort":
            event.assoc.abort()
            return 0x0110
        if wrong == "silence":
            time.sleep(1.0)
            return None
        return wrong if isinstance(wrong, int) else None

    def knows(self, event: Any) -> tuple[bool, None]:
        """Say whether it lets somebody in who says that name and passcode (PS3.7 section D.3.3.7)."""
        assert self.users is not None
        user, passcode = event.primary_field.decode(), event.secondary_field.decode()
        return self.users.get(user) == passcode, None

    def get(self, event: Any) -> tuple[int, Dataset | None]:
        held = self.items.get(str(event.request.RequestedSOPInstanceUID))
        if held is None:
            return 0xC307, None
        return self._guarded(event, "N-GET", lambda: (0, held.ds))

    def set(self, event: Any) -> tuple[int, Dataset | None]:
        held = self.items.get(str(event.request.RequestedSOPInstanceUID))
        changes = event.modification_list
        if held is None:
            return 0xC307, None

        def do() -> tuple[int, None]:
            if held.ds.ProcedureStepState in ("COMPLETED", "CANCELED"):
                return 0xC300, None
            if held.ds.ProcedureStepState != "IN PROGRESS":
                return 0xC310, None
            if changes.get("TransactionUID") != held.transaction:
                return 0xC301, None
            del changes.TransactionUID
            held.ds.update(changes)
            for told in changes.get("ProcedureStepProgressInformationSequence", []):
                held.progress.append(str(told.get("ProcedureStepProgress", "")))
            return 0, None

        return self._guarded(event, "N-SET", do)

    def action(self, event: Any) -> tuple[int, Dataset | None]:
        uid, asked = str(event.request.RequestedSOPInstanceUID), event.action_information
        if event.action_type == 3:
            if not self.watched:
                return 0x0122, None
            if uid == SUBSCRIPTIONS[1] and not self.filters:
                return 0xC307, None
            self.subscribers.append((str(asked.ReceivingAE), uid))
            return 0, None
        held = self.items.get(uid)
        if held is None:
            return 0xC307, None
        wanted = str(asked.ProcedureStepState)
        return self._guarded(
            event, wanted, lambda: (self._change(held, wanted, str(asked.TransactionUID)), None)
        )

    def _change(self, held: Held, wanted: str, transaction: str) -> int:
        """Return the status of PS3.4 Table CC.1.1-2 and CC.2.1-2."""
        now = held.ds.ProcedureStepState
        if wanted == "SCHEDULED":
            return 0xC303
        if now == "SCHEDULED":
            if wanted != "IN PROGRESS":
                return 0xC310
            held.transaction = transaction
        elif now == wanted and now != "IN PROGRESS":
            return 0xB306 if now == "COMPLETED" else 0xB304
        elif now in ("COMPLETED", "CANCELED"):
            return 0xC300
        elif wanted == "IN PROGRESS" and self.grants_twice:
            held.transaction = transaction
            return 0
        elif wanted == "IN PROGRESS":
            return 0xC302
        elif transaction != held.transaction:
            return 0xC301
        elif not _final(held.ds, wanted):
            return 0xC304
        held.ds.ProcedureStepState = wanted
        held.went.append(wanted)
        return 0


def _final(ds: Dataset, wanted: str) -> bool:
    """Say whether what Table CC.2.5-3 requires for a final state is there."""
    if wanted == "CANCELED":
        told = ds.get("ProcedureStepProgressInformationSequence") or [Dataset()]
        return bool(
            told[0].get("ProcedureStepCancellationDateTime")
            and told[0].get("ProcedureStepDiscontinuationReasonCodeSequence")
        )
    done = (ds.get("UnifiedProcedureStepPerformedProcedureSequence") or [Dataset()])[0]
    needed = (
        "PerformedStationNameCodeSequence",
        "PerformedWorkitemCodeSequence",
        "PerformedProcedureStepStartDateTime",
        "PerformedProcedureStepEndDateTime",
        "OutputInformationSequence",
    )
    return all(done.get(keyword) for keyword in needed)


@contextmanager
def serving(provider: UpsProvider, security: ssl.SSLContext | None = None) -> Iterator[UpsProvider]:
    """Run it on a free port, with TLS where a context is given."""
    entity = AE("MANAGER")
    entity.maximum_associations = 32
    for sop_class in (PUSH, WATCH, PULL):
        entity.add_supported_context(sop_class)
    handlers = [
        (evt.EVT_C_FIND, provider.find),
        (evt.EVT_N_GET, provider.get),
        (evt.EVT_N_SET, provider.set),
        (evt.EVT_N_ACTION, provider.action),
    ]
    if provider.users is not None:
        handlers.append((evt.EVT_USER_ID, provider.knows))
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=security)
    provider.port = server.socket.getsockname()[1]
    try:
        yield provider
    finally:
        server.shutdown()
