"""Unified Procedure Steps as their performer and watcher (PS3.4 Annex CC). Knows no files and no database.

Answers become checked values; what a provider says beyond them, patients' names for instance, is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NotOfferedError
from dicom_node.domain.performing import Answer, Code, Performed, Session, Step, UpsSource
from dicom_node.domain.types import Destination
from dicom_node.domain.urgency import stated
from dicom_node.worklist import messages_in, ups_items
from dicom_node.worklist.connect import Connect

PUSH, WATCH = "1.2.840.10008.5.1.4.34.6.1", "1.2.840.10008.5.1.4.34.6.2"
PULL = "1.2.840.10008.5.1.4.34.6.3"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
MOST = 2000
"""Matches of one query that are looked at."""

_CHANGE_STATE, _SUBSCRIBE = 1, 3
_PENDING = (0xFF00, 0xFF01)
_AWAY = (0x0110, 0x0213, 0xA700)
_ANSWERS = {
    0x0000: Answer.DONE,
    0x0001: Answer.DONE,
    0xB300: Answer.DONE,
    0xB301: Answer.DONE,
    0xB304: Answer.ALREADY,
    0xB305: Answer.DONE,
    0xB306: Answer.ALREADY,
    0xC300: Answer.ENDED,
    0xC301: Answer.NOT_OURS,
    0xC302: Answer.TAKEN,
    0xC304: Answer.UNMET,
    0xC307: Answer.GONE,
    0xC310: Answer.NOT_BEGUN,
    0xC311: Answer.ENDED,
    0x0112: Answer.GONE,
    0x0107: Answer.DONE,
    0x0116: Answer.DONE,
}
"""What a status means to a performer (PS3.4 Tables CC.2.1-2, CC.2.6-1; PS3.7 annex C)."""


class Ups:
    """Reaches providers by associations that it is given; implements `domain.performing.Provider`.

    Parameters
    ----------
    connect
        Opens an association.
    ae_title
        This node's own, that event reports are sent to.
    """

    def __init__(self, connect: Connect, ae_title: str) -> None:
        self._connect = connect
        self._ae_title = ae_title

    def scheduled(self, source: UpsSource, most: int) -> list[Step]:
        """Return steps that are meant for this node and scheduled, at most so many, the most urgent first.

        Raises
        ------
        NotOfferedError, DestinationRefusedError
            If it offers no Pull, or will not be asked.
        DestinationAwayError
            If it cannot be asked now.
        """
        found: list[Step] = []
        seen = beyond = 0
        with self._open(source, PULL) as association:
            try:
                for answer, match in association.send_c_find(ups_items.query(source), PULL):
                    status = answer.get("Status")
                    if status is None:
                        raise _lost(source, "a query")
                    if status not in _PENDING:
                        if status != 0 and not (beyond and status == 0xFE00):
                            raise _refused(source, "a query", int(status))
                        break
                    seen += 1
                    if seen > MOST:
                        beyond += 1
                        if beyond == 1:
                            association.send_c_cancel(1, query_model=PULL)
                        elif beyond > MOST:
                            association.abort()
                            break
                        continue
                    step = None if match is None else ups_items.step(match)
                    if step is not None and step.is_for(source):
                        found.append(step)
            except RuntimeError as error:
                raise _lost(source, "a query") from error
        found.sort(
            key=lambda step: stated(step.priority)
        )  # stable: within a priority, as the provider lists them
        return found[:most]

    def subscribe(self, source: UpsSource) -> str:
        """Ask for event reports on the steps of this node, or on all where the provider has no filter.

        Raises
        ------
        NotOfferedError, DestinationRefusedError, DestinationAwayError
            If there is no subscription.
        """
        asked = Dataset()
        asked.ReceivingAE = self._ae_title
        asked.DeletionLock = "FALSE"
        with self._open(source, WATCH) as association:
            filtered = ups_items.subscription(source)
            filtered.update(asked)
            status = self._subscribe(source, association, filtered, FILTERED)
            if status in (0, 0xB301):
                return "its steps by filter"
            status = self._subscribe(source, association, asked, GLOBAL)
            if status in (0, 0xB301):
                return "all steps"
        raise _refused(source, "a subscription", status)

    @property
    def session(self) -> Callable[[UpsSource], AbstractContextManager[Session]]:
        """Opens an association for the length of a block."""
        return self._session

    @contextmanager
    def _session(self, source: UpsSource) -> Iterator[Session]:
        with self._open(source, PULL) as association:
            yield PullSession(source, association)

    def _subscribe(self, source: UpsSource, association: Association, asked: Dataset, instance: str) -> int:
        return _status(
            source,
            "a subscription",
            lambda: association.send_n_action(asked, _SUBSCRIBE, PUSH, instance, meta_uid=WATCH)[0],
        )

    @contextmanager
    def _open(self, source: UpsSource, sop_class: str) -> Iterator[Association]:
        peer = Destination(source.name, source.ae_title, source.host, source.port, source.security)
        context = build_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        with self._connect(peer, [context], timeout=source.timeout) as association:
            messages_in.install(association)
            yield association


class PullSession:
    """An association to a provider on which steps are read and changed; implements `domain.performing.Session`."""

    def __init__(self, source: UpsSource, association: Association) -> None:
        self._source = source
        self._association = association

    def get(self, sop_instance_uid: str) -> Step | None:
        """Return a step, None where there is none (N-GET, PS3.4 section CC.2.7)."""
        told: list[Dataset] = []

        def ask() -> Dataset:
            status, attributes = self._association.send_n_get(
                ups_items.WANTED, PUSH, sop_instance_uid, meta_uid=PULL
            )
            if attributes is not None:
                told.append(attributes)
            return status

        status = _status(self._source, "N-GET", ask)
        if _ANSWERS.get(status) is Answer.GONE:
            return None
        if _ANSWERS.get(status) is not Answer.DONE or not told:
            raise _refused(self._source, "N-GET", status)
        step = ups_items.step(told[0], sop_instance_uid)
        if step is None:
            raise DestinationRefusedError(
                f"{_where(self._source)} tells step {sop_instance_uid} without a state; SCHEDULED, for instance, "
                "would be right"
            )
        return step

    def change_state(self, sop_instance_uid: str, transaction_uid: str, state: str) -> Answer:
        """Ask for another state (N-ACTION, PS3.4 section CC.2.1)."""
        asked = Dataset()
        asked.TransactionUID = transaction_uid
        asked.ProcedureStepState = state
        return self._answer(
            f"N-ACTION to {state}",
            lambda: self._association.send_n_action(
                asked, _CHANGE_STATE, PUSH, sop_instance_uid, meta_uid=PULL
            )[0],
        )

    def progress(self, sop_instance_uid: str, transaction_uid: str, percent: int, description: str) -> Answer:
        """Tell how far it is."""
        return self._set(sop_instance_uid, transaction_uid, ups_items.progress(percent, description))

    def performed(self, sop_instance_uid: str, transaction_uid: str, what: Performed) -> Answer:
        """Tell what was done."""
        return self._set(sop_instance_uid, transaction_uid, ups_items.performed(what))

    def discontinued(self, sop_instance_uid: str, transaction_uid: str, at: datetime, reason: Code) -> Answer:
        """Tell why it will be canceled."""
        return self._set(sop_instance_uid, transaction_uid, ups_items.discontinued(at, reason))

    def _set(self, sop_instance_uid: str, transaction_uid: str, changes: Dataset) -> Answer:
        changes.TransactionUID = transaction_uid
        return self._answer(
            "N-SET", lambda: self._association.send_n_set(changes, PUSH, sop_instance_uid, meta_uid=PULL)[0]
        )

    def _answer(self, what: str, ask: Callable[[], Dataset]) -> Answer:
        status = _status(self._source, what, ask)
        if status not in _ANSWERS:
            raise _refused(self._source, what, status)
        return _ANSWERS[status]


def _status(source: UpsSource, what: str, ask: Callable[[], Any]) -> int:
    try:
        answer = ask()
    except (RuntimeError, ValueError) as error:  # the association is gone, or the context was not accepted
        raise _lost(source, what) from error
    status = answer.get("Status")
    if status is None:
        raise _lost(source, what)
    return int(status)


def _where(source: UpsSource) -> str:
    return f"{source.name} ({source.ae_title} at {source.host}:{source.port})"


def _lost(source: UpsSource, what: str) -> DestinationAwayError:
    return DestinationAwayError(
        f"{_where(source)} ended the association at {what}, or did not answer within {source.timeout:g} s"
    )


def _refused(source: UpsSource, what: str, status: int) -> DestinationAwayError | DestinationRefusedError:
    said = f"{_where(source)} answered 0x{status:04X} to {what}"
    if status in _AWAY:
        return DestinationAwayError(f"{said}: it could not do it; find the cause in its log")
    if status == 0x0124:
        return DestinationRefusedError(f"{said}: not authorised; it must allow this node's AE title to perform")
    if status in (0x0118, 0x0122, 0x0211):
        return NotOfferedError(f"{said}: it does not offer this; UPS Pull (PS3.4 Annex CC) would be right")
    return DestinationRefusedError(f"{said}; 0x0000 would be right")
