"""Finds out whether a destination holds what it was sent: by storage commitment, else by a query, else not at all.

Owns the order of the questions and for how long they are asked. Knows nothing of associations: how to ask is given in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.commitment import FAILURE_REASONS, CommitmentResult, Reference
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NodeError
from dicom_node.domain.types import Destination
from dicom_node.report import profile
from dicom_node.store import commitments, objects
from dicom_node.store.reports import StoredDelivery, StoredReport

log = logging.getLogger(__name__)

_ASK_ANEW = timedelta(minutes=10)
"""How long it is believed that a destination offers no such service."""


class Request(Protocol):
    """Asks for storage commitment; returns the answer if it came at once."""

    def __call__(
        self, destination: Destination, references: list[Reference], transaction_uid: str
    ) -> CommitmentResult | None:
        """Raise DestinationAwayError or DestinationRefusedError (NotOfferedError)."""


class Holds(Protocol):
    """Asks whether an object is found."""

    def __call__(
        self,
        destination: Destination,
        *,
        study_instance_uid: str,
        series_instance_uid: str,
        sop_instance_uid: str,
    ) -> bool:
        """Raise DestinationAwayError or DestinationRefusedError (NotOfferedError)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of a delivery.

    `state` is "committed" or "found" where the destination answers for the object; "unconfirmed" where it never will;
    "open" where it may yet; "missing" where it says that it has not got it. `away` is True where it did not answer.
    """

    state: Literal["committed", "found", "unconfirmed", "open", "missing"]
    reason: str = ""
    away: bool = False


class Confirm:
    """Callable that looks at one delivery.

    Parameters
    ----------
    request, holds
        How to ask.
    seconds
        How long after the delivery an answer is waited for.
    new_uid
        Makes Transaction UIDs.
    """

    def __init__(
        self,
        engine: Engine,
        request: Request,
        holds: Holds,
        seconds: float,
        clock: Callable[[], datetime],
        new_uid: Callable[[], str],
    ) -> None:
        self._engine = engine
        self._request = request
        self._holds = holds
        self._window = timedelta(seconds=seconds)
        self._clock = clock
        self._new_uid = new_uid
        self._without: dict[tuple[str, str], datetime] = {}

    def wanted(self, destination: Destination) -> bool:
        """Return whether there is anything to ask this destination for."""
        return any(self._offers(destination, service) for service in _services(destination))

    def asks(self, destination: Destination, report: StoredReport, delivery: StoredDelivery) -> bool:
        """Return whether looking now means asking the destination, not only whether it has answered meanwhile."""
        offered = [service for service in _services(destination) if self._offers(destination, service)]
        if offered[:1] != ["commitment"]:
            return bool(offered)
        with reading(self._engine) as conn:
            asked = commitments.newest(conn, report.sop_instance_uid, destination.name, delivery.sent_at)
        if asked is None:
            return True
        return asked.answered_at is None and "find" in offered and self._over(delivery)

    def __call__(self, destination: Destination, report: StoredReport, delivery: StoredDelivery) -> Finding:
        """Ask, or look whether an earlier question was answered."""
        over = self._over(delivery)
        finding = Finding("unconfirmed", "the destination offers neither storage commitment nor a query")
        for service in _services(destination):
            if not self._offers(destination, service):
                continue
            ask = self._commitment if service == "commitment" else self._query
            try:
                finding = ask(destination, report, delivery)
            except DestinationAwayError as error:
                finding = Finding("open", str(error), away=True)
            except DestinationRefusedError as error:
                self._without[destination.name, service] = self._clock() + _ASK_ANEW
                finding = Finding("unconfirmed", str(error))
            if finding.state in ("committed", "found") or (finding.state == "open" and not over):
                return finding
            if finding.state == "missing" and (service == "commitment" or over):
                return finding
        if finding.state in ("open", "missing"):
            return replace(finding, state="unconfirmed" if over else "open")
        return finding

    def _over(self, delivery: StoredDelivery) -> bool:
        return self._clock() >= delivery.sent_at + self._window

    def _offers(self, destination: Destination, service: str) -> bool:
        until = self._without.get((destination.name, service))
        return until is None or self._clock() >= until

    def _commitment(self, destination: Destination, report: StoredReport, delivery: StoredDelivery) -> Finding:
        with reading(self._engine) as conn:
            asked = commitments.newest(conn, report.sop_instance_uid, destination.name, delivery.sent_at)
            sent = objects.delivered(conn, report.sop_instance_uid, destination.name)
        if asked is None:
            beside = [Reference(one.sop_class_uid, one.sop_instance_uid) for one in sent]
            transaction_uid = self._new_uid()
            with writing(self._engine) as conn:
                commitments.ask(conn, transaction_uid, report.sop_instance_uid, destination.name, self._clock())
            try:
                result = self._request(destination, [_sent(report, delivery), *beside], transaction_uid)
            except NodeError:
                with writing(self._engine) as conn:
                    commitments.forget(conn, transaction_uid)
                raise
            if result is not None:
                with writing(self._engine) as conn:
                    commitments.answer(conn, result, self._clock())
            with reading(self._engine) as conn:  # it may have come on another association meanwhile
                asked = commitments.newest(conn, report.sop_instance_uid, destination.name, delivery.sent_at)
        if asked is None or asked.answered_at is None:
            return Finding("open", "storage commitment is asked for, its answer is awaited")
        reason = asked.failure_reason
        if reason is None:
            return Finding("committed")
        told = FAILURE_REASONS.get(reason, "reason unknown")
        return Finding("missing", f"{destination.name} does not commit itself: 0x{reason:04X} ({told})")

    def _query(self, destination: Destination, report: StoredReport, delivery: StoredDelivery) -> Finding:
        found = self._holds(
            destination,
            study_instance_uid=report.study_instance_uid,
            series_instance_uid=report.series_instance_uid,
            sop_instance_uid=_sent(report, delivery).sop_instance_uid,
        )
        return Finding("found") if found else Finding("missing", f"{destination.name} does not find the report")


def _services(destination: Destination) -> tuple[str, ...]:
    return {"auto": ("commitment", "find"), "none": ()}.get(destination.confirm, (destination.confirm,))


def _sent(report: StoredReport, delivery: StoredDelivery) -> Reference:
    sop_class = delivery.sent_as or report.sop_class_uid
    return Reference(sop_class, profile.cut_uid(report.sop_instance_uid, sop_class))
