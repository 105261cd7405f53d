"""What came lately, from whom, and what went where: for people who look whether a node is alive. Changes nothing.

Health is told by traffic: a sender of whom nothing came for days shows here, whatever its state says.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, case, func, select

from dicom_node.db.schema import associations, deliveries, instances, work_items
from dicom_node.domain.sop_classes import GROUPS
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind

_MOST = 500


@dataclass(frozen=True, slots=True)
class Came:
    """What one sender sent of one modality: how many images in all, and when the last."""

    calling_ae_title: str
    modality: str
    images: int
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Seen:
    """The last association of a sender that stored something."""

    calling_ae_title: str
    peer_address: str
    last_at: datetime
    ended_as: str


@dataclass(frozen=True, slots=True)
class Going:
    """What one destination got and is still to get; `reason` is that of the oldest item that failed or waits."""

    destination: str
    last_at: datetime | None = None
    waiting: int = 0
    failed: int = 0
    reason: str = ""
    reason_at: datetime | None = None


def came(conn: Connection) -> tuple[Came, ...]:
    """Return what came, by sender and modality (CR, DX, SC), the latest first."""
    known = {uid: name for name in ("CR", "DX", "SC") for uid in GROUPS[name]}
    modality = case(*((instances.c.sop_class_uid == uid, name) for uid, name in known.items()), else_="OT")
    last = func.max(instances.c.received_at)
    rows = conn.execute(
        select(
            instances.c.calling_ae_title, modality.label("modality"), func.count().label("n"), last.label("at")
        )
        .group_by(instances.c.calling_ae_title, modality)
        .order_by(last.desc())
        .limit(_MOST)
    )
    return tuple(Came(row.calling_ae_title, row.modality, row.n, row.at) for row in rows)


def senders(conn: Connection) -> tuple[Seen, ...]:
    """Return who stored something, and when that was seen last, the latest first."""
    newest = (
        select(
            associations.c.calling_ae_title.label("title"), func.max(associations.c.last_seen_at).label("at")
        )
        .group_by(associations.c.calling_ae_title)
        .order_by(func.max(associations.c.last_seen_at).desc())
        .limit(_MOST)
        .subquery()
    )
    rows = conn.execute(
        select(associations)
        .join(
            newest,
            (associations.c.calling_ae_title == newest.c.title) & (associations.c.last_seen_at == newest.c.at),
        )
        .order_by(associations.c.last_seen_at.desc(), associations.c.id)
    )
    found: dict[str, Seen] = {}
    for row in rows:
        found.setdefault(
            row.calling_ae_title, Seen(row.calling_ae_title, row.peer_address, row.last_seen_at, row.ended_as)
        )
    return tuple(found.values())


def going(conn: Connection) -> dict[str, Going]:
    """Return what went to each destination and what is left, by its name."""
    last = {
        row.destination: row.at
        for row in conn.execute(
            select(deliveries.c.destination, func.max(deliveries.c.sent_at).label("at")).group_by(
                deliveries.c.destination
            )
        )
    }
    counts: dict[str, dict[str, int]] = {}
    left = (State.SCHEDULED, State.IN_PROGRESS, State.FAILED)
    of_delivery = (work_items.c.kind == Kind.DELIVER, work_items.c.state.in_(left))
    for row in conn.execute(
        select(work_items.c.destination, work_items.c.state, func.count().label("n"))
        .where(*of_delivery)
        .group_by(work_items.c.destination, work_items.c.state)
    ):
        counts.setdefault(row.destination, {})[row.state] = row.n
    oldest = select(func.min(work_items.c.id)).where(*of_delivery, work_items.c.reason != "")
    reasons = {
        row.destination: (row.reason, row.updated_at)
        for row in conn.execute(
            select(work_items.c.destination, work_items.c.reason, work_items.c.updated_at).where(
                work_items.c.id.in_(oldest.group_by(work_items.c.destination))
            )
        )
    }
    return {
        name: Going(
            name,
            last.get(name),
            sum(n for state, n in counts.get(name, {}).items() if state != State.FAILED),
            counts.get(name, {}).get(State.FAILED, 0),
            *reasons.get(name, ("", None)),
        )
        for name in sorted(last | counts)
    }
