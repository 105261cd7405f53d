"""Delivers one report to one destination; the same stored bytes at every attempt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import DestinationAwayError, NodeError
from dicom_node.domain.types import Delivery, Destination, Done, Refuse, Retry, WorkItem
from dicom_node.pipeline.absences import Absences
from dicom_node.pipeline.process import Prepared
from dicom_node.store import reports
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)


def _nothing(_conn: Connection) -> None:
    """Commit no row beyond the acknowledgement."""


class Dispatch:
    """Handler of DELIVER work items.

    Parameters
    ----------
    send
        Sends one Part 10 object to a destination; raises DestinationAwayError or DestinationRefusedError.
    destinations
        Destinations by name, as configured now.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        send: Callable[[Destination, bytes], Delivery],
        destinations: Mapping[str, Destination],
        clock: Callable[[], datetime],
    ) -> None:
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
            done = stored is not None and any(
                d.destination == destination.name for d in reports.deliveries(conn, stored.sop_instance_uid)
            )
        if stored is None:
            return Prepared(
                Refuse(f"revision {item.revision} of {item.study_instance_uid} has no report"), _nothing
            )
        if done:
            return Prepared(Done("already delivered"), _nothing)
        if (absence := self._absences.of(destination.name)) is not None:
            return Prepared(Retry(f"not tried, since a moment ago: {absence}"), _nothing)
        began = self._clock()
        try:
            delivery = self._send(destination, self._files.read_report(stored.digest))
        except NodeError as error:
            reason = str(error)
            if isinstance(error, DestinationAwayError):
                self._absences.note(destination.name, reason, self._clock() - began)
            return Prepared(Retry(reason) if error.retryable else Refuse(reason), _nothing)
        self._absences.over(destination.name)
        outcome = Done(f"status 0x{delivery.status:04X}")

        def commit(conn: Connection) -> None:
            reports.record_delivery(conn, delivery, self._clock())

        log.info("report delivered", extra={"destination": destination.name, "status": delivery.status})
        return Prepared(outcome, commit)

    def give_up(self, _item: WorkItem, reason: str) -> Prepared:
        """Leave the delivery to people: the report stays here and can be retried."""
        return Prepared(Refuse(reason), _nothing)
