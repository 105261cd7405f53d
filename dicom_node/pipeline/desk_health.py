"""The node at a glance: its queue, who sent and who was sent to, the disk, what went wrong lately, what is due."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from dicom_node.db import events
from dicom_node.db.engine import reading
from dicom_node.domain.reading import HealthView, PeerView
from dicom_node.domain.types import Destination
from dicom_node.pipeline.desk_list import OWN
from dicom_node.queue import items
from dicom_node.store import contacts, traffic
from dicom_node.store.contacts import Contact

FAILURES = frozenset(
    {
        "workitem.failed",
        "workitem.expired",
        "delivery.withdrawn",
        "commitment.undelivered",
        "instance.lost",
        "instance.conflict",
        "report.lost",
        "report.differs",
        "object.lost",
        "bank.failed",
    }
)
"""Kinds of events that a person should know of."""

ERRORS = 50
TRAFFIC_SECONDS = 10.0
"""So old may be what is told of traffic: counting a million images takes a while."""

Row = Mapping[str, Any]
Due = Callable[[Connection, datetime], Sequence[Row]]
"""Returns the studies that are due or were missed; see `store.expected`."""


ARCHIVE, MODALITY_WORKLIST, UPS_WORKLIST = "archive", "modality worklist", "UPS worklist"
"""Kinds of peers that are only asked."""


@dataclass(frozen=True, slots=True)
class Itself:
    """What the page says of the node itself; `peers` are those that are only asked: archives, worklists."""

    version: str
    ae_title: str
    root: Path
    reserve_bytes: int
    destinations: Mapping[str, Destination]
    peers: tuple[PeerView, ...] = ()


class HealthDesk:
    """Answers what the page of the node asks.

    Parameters
    ----------
    due
        Returns the studies that are due.
    """

    def __init__(
        self,
        engine: Engine,
        itself: Itself,
        clock: Callable[[], datetime],
        due: Due = lambda _conn, _now: (),
    ) -> None:
        self._engine = engine
        self._itself = itself
        self._clock = clock
        self._due = due
        self._counted: tuple[datetime, tuple[traffic.Came, ...], tuple[PeerView, ...]] | None = None
        self._lock = threading.Lock()

    def health(self) -> HealthView:
        """Return the node as of now."""
        now, itself = self._clock(), self._itself
        with reading(self._engine) as conn:
            counts = items.counts(conn)
            oldest = items.oldest_due(conn, now)
            senders = traffic.senders(conn)
            going = traffic.going(conn)
            failures = events.latest(conn, FAILURES, ERRORS)
            due = tuple(self._due(conn, now))
            came, others = self._traffic(conn, now)
        disk = shutil.disk_usage(itself.root)
        return HealthView(
            at=now,
            version=itself.version,
            ae_title=itself.ae_title,
            queue=tuple({"kind": k, "state": s, "items": n} for (k, s), n in sorted(counts.items())),
            oldest_due_seconds=None if oldest is None else (now - oldest).total_seconds(),
            free_bytes=disk.free,
            reserve_bytes=itself.reserve_bytes,
            total_bytes=disk.total,
            peers=(*_senders(senders), *_destinations(itself.destinations, going), *others),
            traffic=tuple(
                {
                    "modality": one.modality,
                    "calling_ae_title": one.calling_ae_title,
                    "images": one.images,
                    "last_at": one.last_at,
                }
                for one in came
                if one.calling_ae_title not in OWN
            ),
            errors=tuple(_failure(row) for row in failures),
            due=due,
        )

    def destinations(self) -> tuple[str, ...]:
        """Return the names of the destinations that are configured."""
        return tuple(sorted(self._itself.destinations))

    def _traffic(
        self, conn: Connection, now: datetime
    ) -> tuple[tuple[traffic.Came, ...], tuple[PeerView, ...]]:
        with self._lock:
            known = self._counted
            if known is None or not 0 <= (now - known[0]).total_seconds() < TRAFFIC_SECONDS:
                known = (now, traffic.came(conn), tuple(_others(conn, self._itself.peers)))
                self._counted = known
        return known[1:]


def _senders(seen: Sequence[traffic.Seen]) -> list[PeerView]:
    return [
        PeerView(
            one.calling_ae_title,
            "sender",
            one.last_at,
            {"": "sending", "released": "ok"}.get(one.ended_as, one.ended_as),
            f"from {one.peer_address}" if one.peer_address else "",
        )
        for one in seen
        if one.calling_ae_title not in OWN
    ]


def _destinations(known: Mapping[str, Destination], going: Mapping[str, traffic.Going]) -> list[PeerView]:
    """Return the destinations that are configured, and those of the past with work left."""
    peers = []
    for name in sorted({*known, *(n for n, one in going.items() if one.waiting or one.failed)}):
        one = going.get(name, traffic.Going(name))
        state = "failed" if one.failed else "away" if one.waiting and one.reason else "ok"
        if name not in known:
            state = "not configured"
        elif state == "ok" and one.last_at is None and not one.waiting:
            state = "unused"
        told = _left(one.waiting, one.failed)
        peers.append(PeerView(name, "destination", one.last_at, state, told, one.reason, one.reason_at))
    return peers


def _others(conn: Connection, configured: Sequence[PeerView]) -> list[PeerView]:
    """Return archives and worklists with what is known of them; none is asked."""
    worklists = [one.name for one in configured if one.kind == MODALITY_WORKLIST]
    known = {
        ARCHIVE: contacts.archives(conn),
        UPS_WORKLIST: contacts.ups_sources(conn),
        MODALITY_WORKLIST: contacts.modality_worklists(conn, worklists),
    }
    return [_heard(one, known[one.kind].get(one.name, Contact())) for one in configured]


def _heard(peer: PeerView, contact: Contact) -> PeerView:
    last_at, error_at = contact.last_at, contact.error_at
    failed = error_at is not None and (last_at is None or error_at > last_at)
    return replace(
        peer,
        last_at=last_at,
        state="failed" if failed else "unused" if last_at is None else "ok",
        detail="; ".join(part for part in (peer.detail, _left(contact.waiting, contact.failed)) if part),
        error=contact.error,
        error_at=error_at,
    )


def _left(waiting: int, failed: int) -> str:
    return "; ".join(
        f"{number} {word}" for number, word in ((waiting, "waiting"), (failed, "failed")) if number
    )


def _failure(row: Any) -> Row:
    detail: Mapping[str, Any] = row.detail or {}
    why = detail.get("reason") or detail.get("why") or ""
    what = " ".join(str(detail[key]) for key in ("work", "destination") if detail.get(key))
    return {
        "at": row.at,
        "what": f"{row.kind} {what}".strip(),
        "why": str(why),
        "study_instance_uid": row.study_instance_uid,
        "work_item_id": row.work_item_id,
    }
