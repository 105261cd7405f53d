"""Delivers one report to one destination; the same stored bytes at every attempt."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Protocol

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading
from dicom_node.domain.audit import Audit, AuditOutcome, Party, TransferBegun, Transferred, unheard
from dicom_node.domain.errors import DestinationAwayError, NodeError, StoreError
from dicom_node.domain.limits import until_open
from dicom_node.domain.states import State
from dicom_node.domain.types import Delivery, Destination, Done, Kind, Refuse, Retry, WorkItem
from dicom_node.pipeline.absences import Absences
from dicom_node.pipeline.confirm import Confirm
from dicom_node.pipeline.process import Prepared
from dicom_node.queue import items
from dicom_node.store import objects, reports
from dicom_node.store.files import FileStore
from dicom_node.store.objects import StoredObject
from dicom_node.store.reports import StoredDelivery, StoredReport

log = logging.getLogger(__name__)

_AWAITED = "sent, waiting for confirmation"
_BEHIND = "waits for the report that it supersedes"
_BEHIND_SECONDS = 2.0
"""How long after that one is due it is looked whether it was sent."""
_TO_BE_SENT = (State.SCHEDULED, State.IN_PROGRESS)


def _nothing(_conn: Connection) -> None:
    """Commit no row beyond the acknowledgement."""


class Send(Protocol):
    """Sends a report, and display objects beside it."""

    def __call__(self, destination: Destination, content: bytes, also: Sequence[bytes] = ()) -> Delivery:
        """Raise DestinationAwayError or DestinationRefusedError."""


class Dispatch:
    """Handler of DELIVER work items.

    Parameters
    ----------
    send
        Sends Part 10 objects to a destination.
    destinations
        Destinations by name, as configured now.
    audit
        Told of the first attempt to send a report, and of its end.
    confirm
        Finds out whether the destination holds what it was sent; without it, its answer to the sending counts.
    zone
        Of the parts of the day in which a destination is sent to; None for the machine's.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        send: Send,
        destinations: Mapping[str, Destination],
        clock: Callable[[], datetime],
        audit: Audit = unheard,
        confirm: Confirm | None = None,
        zone: tzinfo | None = None,
    ) -> None:
        self._zone = zone
        self._confirm = confirm
        self._audit = audit
        self._engine = engine
        self._files = files
        self._send = send
        self._destinations = destinations
        self._clock = clock
        self._absences = Absences(clock)

    def __call__(self, item: WorkItem) -> Prepared:
        """Send the report of the item's revision, unless the destination has already stored it."""
        destination = self._destinations.get(item.destination)
        if destination is None:
            known = ", ".join(sorted(self._destinations)) or "none"
            return Prepared(
                Refuse(
                    f"destination {item.destination!r} is not configured (configured: {known}); "
                    "configure it and retry, or cancel"
                ),
                _nothing,
            )
        with reading(self._engine) as conn:
            stored = reports.get(conn, item.study_instance_uid, item.revision)
            sent = () if stored is None else reports.deliveries(conn, stored.sop_instance_uid)
            uid = "" if stored is None else stored.sop_instance_uid
            beside = objects.of_report(conn, uid, destination.objects) if destination.objects else ()
        if stored is None:
            return Prepared(
                Refuse(f"revision {item.revision} of {item.study_instance_uid} has no report"), _nothing
            )
        if before := next((d for d in sent if d.destination == destination.name), None):
            return self._confirmed(destination, stored, before)
        if (earlier := self._superseded(item)) is not None:
            return self._behind(item, earlier)
        if (wait := until_open(destination.limits.windows, self._clock().astimezone(self._zone))) is not None:
            return Prepared(
                Retry("waits for the part of the day in which this destination is sent to"),
                _nothing,
                counted=False,
                again_in=wait.total_seconds(),
            )
        if (absence := self._absences.of(destination.name)) is not None:
            return Prepared(Retry(f"not tried, since a moment ago: {absence}"), _nothing, counted=False)
        study, classes = item.study_instance_uid, Counter([stored.sop_class_uid])
        peer = Party(destination.ae_title, destination.host)
        if item.attempts <= 1:
            self._audit(TransferBegun(self._clock(), study, classes, peer))
        began = self._clock()
        try:
            delivery = self._send(
                destination, self._files.read_report(stored.digest), list(self._contents(beside))
            )
        except NodeError as error:
            reason = str(error)
            if isinstance(error, DestinationAwayError):
                self._absences.note(destination.name, reason, self._clock() - began)
            if error.retryable:
                return Prepared(Retry(reason), _nothing)
            self._failed(item, destination, reason)
            return Prepared(Refuse(reason), _nothing)
        taken = {one.sop_instance_uid for one in delivery.also}
        classes.update(one.sop_class_uid for one in beside if one.sop_instance_uid in taken)
        self._audit(Transferred(self._clock(), study, classes, peer, sent=True))
        self._absences.over(destination.name)

        def commit(conn: Connection) -> None:
            for one in (delivery, *delivery.also):
                reports.record_delivery(conn, one, self._clock())

        log.info("report delivered", extra={"destination": destination.name, "status": delivery.status})
        if self._confirm is not None and self._confirm.wanted(destination):
            return Prepared(Retry(_AWAITED), commit, counted=False, again_in=0.0, waits=True)
        return Prepared(Done(f"status 0x{delivery.status:04X}"), commit)

    def _superseded(self, item: WorkItem) -> WorkItem | None:
        """Return the delivery of an earlier report on the study that is still to be sent there: that one goes first."""
        with reading(self._engine) as conn:
            for one in items.of_study(conn, item.study_instance_uid):
                same = one.kind is Kind.DELIVER and one.destination == item.destination
                if same and one.revision < item.revision and one.state in _TO_BE_SENT:
                    report = reports.get(conn, one.study_instance_uid, one.revision)
                    sent = () if report is None else reports.deliveries(conn, report.sop_instance_uid)
                    if all(delivery.destination != item.destination for delivery in sent):
                        return one
        return None

    def _behind(self, item: WorkItem, earlier: WorkItem) -> Prepared:
        """Have the earlier one tried at once, as urgently, and wait until it is due where it still is not sent then."""
        now = self._clock()
        wait = (earlier.available_at - now).total_seconds() if item.reason == _BEHIND else 0.0

        def hasten(conn: Connection) -> None:
            if item.reason != _BEHIND:
                study, revision = item.study_instance_uid, earlier.revision
                items.hasten(conn, Kind.DELIVER, study, revision, item.destination, now, item.priority)

        again_in = max(wait, 0.0) + _BEHIND_SECONDS
        return Prepared(Retry(_BEHIND), hasten, counted=False, again_in=again_in, waits=True)

    def left_alone(self) -> frozenset[str]:
        """Return the destinations that let their senders wait a moment ago, and need not be tried now."""
        return self._absences.all()

    def _contents(self, beside: Sequence[StoredObject]) -> Iterator[bytes]:
        for one in beside:
            try:
                yield self._files.read_report(one.digest)
            except StoreError as error:  # told by the deep check, too; the report must not wait for it
                log.warning("a display object is left out", extra={"what": one.kind, "reason": str(error)})

    def _confirmed(self, destination: Destination, report: StoredReport, delivery: StoredDelivery) -> Prepared:
        """Ask whether the destination holds what it was sent; only then is the work done."""
        if self._confirm is None or delivery.confirmed:
            return Prepared(Done("already delivered"), _nothing)
        name, uid = destination.name, report.sop_instance_uid
        # Who only looks whether an answer came takes nobody's turn to try the destination, and learns nothing of it.
        asks = self._confirm.asks(destination, report, delivery)
        if asks and (absence := self._absences.of(name)) is not None:
            told = f"{_AWAITED}; not asked, since a moment ago: {absence}"
            return Prepared(Retry(told), _nothing, counted=False, waits=True)
        began = self._clock()
        finding = self._confirm(destination, report, delivery)
        if finding.away:
            self._absences.note(name, finding.reason, self._clock() - began)
        elif asks:
            self._absences.over(name)
        if finding.state == "open":
            return Prepared(Retry(f"{_AWAITED}: {finding.reason}"), _nothing, counted=False, waits=True)
        if finding.state == "missing":

            def withdraw(conn: Connection) -> None:
                reports.withdraw_delivery(conn, uid, name, finding.reason, self._clock())
                objects.withdraw(conn, uid, name)

            return Prepared(Retry(f"sent, and not held there; it is sent again: {finding.reason}"), withdraw)

        def note(conn: Connection) -> None:
            reports.confirm_delivery(conn, uid, name, finding.state, self._clock())
            if finding.state == "committed":  # which was asked for the objects, too
                objects.settle(conn, uid, name, finding.state, self._clock())

        said = f"sent, unconfirmed: {finding.reason}" if finding.state == "unconfirmed" else finding.state
        log.info("delivery settled", extra={"destination": name, "confirmed": finding.state})
        return Prepared(Done(said), note)

    def give_up(self, item: WorkItem, reason: str) -> Prepared:
        """Leave the delivery to people: the report stays here and can be retried."""
        if (destination := self._destinations.get(item.destination)) is not None:
            self._failed(item, destination, reason)
        return Prepared(Refuse(reason), _nothing)

    def _failed(self, item: WorkItem, destination: Destination, reason: str) -> None:
        self._audit(
            Transferred(
                at=self._clock(),
                study_instance_uid=item.study_instance_uid,
                sop_classes={},
                peer=Party(destination.ae_title, destination.host),
                sent=True,
                outcome=AuditOutcome.SERIOUS_FAILURE,
                description=reason,
            )
        )
