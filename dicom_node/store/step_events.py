"""Keeps account of the events that subscribers to procedure steps are owed. Owns their table; never commits."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, or_, select, update

from dicom_node.db.dialect import insert, storable
from dicom_node.db.schema_steps import procedure_steps, step_events
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.procedure_steps import Step, StepEvent, Subscription
from dicom_node.store import node_facts, step_subscriptions

_MOST_OWED = 100_000
_events = step_events.c


def owe(
    conn: Connection,
    ae_title: str,
    peer_address: str,
    steps: Iterable[Step],
    at: datetime,
    filter_digest: str = "",
) -> None:
    """Owe a new subscriber the present state of steps (PS3.4 section CC.2.3.3).

    Who subscribes again and again is owed it once: else one AE could fill what is kept for all.
    """
    waiting = set(
        conn.execute(
            select(_events.sop_instance_uid, _events.state, _events.filter_digest).where(
                _events.ae_title == ae_title, _events.kind == ups.STATE_REPORT
            )
        ).tuples()
    )
    receiver = {"ae_title": ae_title, "peer_address": peer_address, "filter_digest": filter_digest}
    rows = [
        {
            **receiver,
            "sop_instance_uid": one.sop_instance_uid,
            "state": one.state,
            "reason": storable(one.reason),
            "ready": one.state != ups.SCHEDULED or one.work_item_id is not None,
        }
        for one in steps
        if (one.sop_instance_uid, one.state, filter_digest) not in waiting
    ]
    _add(conn, rows, at)


def tell(
    conn: Connection,
    sop_instance_uid: str,
    state: str,
    at: datetime,
    *,
    kind: int = ups.STATE_REPORT,
    reason: str = "",
    progress: int = 0,
    requesting_ae: str = "",
    digest: str = "",
) -> int:
    """Owe everybody who watches a step an event; return how many are owed it.

    Parameters
    ----------
    kind, reason, progress, requesting_ae, digest
        As of a `StepEvent`.
    """
    step = conn.execute(
        select(procedure_steps.c.created_at, procedure_steps.c.work_item_id).where(
            procedure_steps.c.sop_instance_uid == sop_instance_uid
        )
    ).one_or_none()
    if step is None:
        return 0
    happened = {
        "sop_instance_uid": sop_instance_uid,
        "kind": kind,
        "state": state,
        "ready": state != ups.SCHEDULED or step.work_item_id is not None,
        "reason": storable(reason),
        "progress": progress,
        "requesting_ae": storable(requesting_ae, 16),
        "digest": digest,
    }
    watching = step_subscriptions.watching(conn, sop_instance_uid, step.created_at)
    return _add(conn, [{**_receiver(one), **happened} for one in watching], at)


def tell_status(conn: Connection, status: str, at: datetime) -> int:
    """Owe everybody who watches all steps that the provider has another SCP Status; an older one is not told."""
    conn.execute(delete(step_events).where(_events.kind == ups.SCP_STATUS_CHANGE))
    happened = {"sop_instance_uid": ups.GLOBAL, "kind": ups.SCP_STATUS_CHANGE, "state": status, "ready": True}
    watching = step_subscriptions.to_all(conn)
    return _add(conn, [{**_receiver(one), **happened, "filter_digest": ""} for one in watching], at)


def _receiver(one: Subscription) -> dict[str, Any]:
    return {"ae_title": one.ae_title, "peer_address": one.peer_address, "filter_digest": one.filter_digest}


def _add(conn: Connection, rows: list[dict[str, Any]], at: datetime) -> int:
    if not rows:
        return 0
    if conn.execute(select(func.count()).select_from(step_events)).scalar_one() >= _MOST_OWED:
        return 0
    conn.execute(insert(conn, step_events), [{**row, "at": at, "due_at": at} for row in rows])
    return len(rows)


def any_due(conn: Connection, now: datetime) -> bool:
    """Return whether an event is due."""
    return conn.execute(select(_events.id).where(_events.due_at <= now).limit(1)).first() is not None


def claim(
    conn: Connection, now: datetime, until: datetime, limit: int = 200, kinds: Collection[int] = ()
) -> tuple[tuple[StepEvent, str], ...]:
    """Return events that are due with the address their subscriber came from, in the order they happened.

    Nobody else gets them before `until`. A subscriber to whom an earlier one is not due yet, or is being told by
    somebody else, gets none: it hears of states in their order.
    """
    node_facts.alone(conn, "procedure_step_events")
    later = step_events.alias()
    query = (
        select(step_events)
        .where(
            _events.due_at <= now,
            ~exists().where(
                later.c.ae_title == _events.ae_title, later.c.id < _events.id, later.c.due_at > now
            ),
        )
        .order_by(_events.id)
        .limit(limit)
    )
    if kinds:
        query = query.where(_events.kind.in_(kinds))
    claimed = tuple((_event(row), row.peer_address) for row in conn.execute(query))
    ids = [event.id for event, _ in claimed]
    conn.execute(update(step_events).where(_events.id.in_(ids)).values(due_at=until))
    return claimed


def settle(conn: Connection, event_id: int) -> None:
    """Forget an event that was taken, or never will be."""
    conn.execute(delete(step_events).where(_events.id == event_id))


def postpone(conn: Connection, event_id: int, due_at: datetime) -> None:
    """Try an event again later."""
    conn.execute(
        update(step_events).where(_events.id == event_id).values(due_at=due_at, attempts=_events.attempts + 1)
    )


def withdraw(conn: Connection, ae_title: str, sop_instance_uid: str = "") -> None:
    """Forget what an AE is owed of a step, or of all: it wants to hear no more."""
    mine = _events.ae_title == ae_title
    if sop_instance_uid:
        mine &= _events.sop_instance_uid == sop_instance_uid
    conn.execute(delete(step_events).where(mine))


def refilter(conn: Connection, ae_title: str, filter_digest: str) -> None:
    """Have what an AE is owed by a filtered subscription judged by the one that took its place, "" for no filter."""
    conn.execute(
        update(step_events)
        .where(_events.ae_title == ae_title, _events.filter_digest != "")
        .values(filter_digest=filter_digest)
    )


def digests(conn: Connection) -> set[str]:
    """Return the digests of all files that events to be told need."""
    rows = conn.execute(
        select(_events.digest, _events.filter_digest).where(
            or_(_events.digest != "", _events.filter_digest != "")
        )
    )
    return {digest for row in rows for digest in row if digest}


def lose(conn: Connection, digest: str) -> None:
    """Tell events without a file that is lost; those that depend on lost keys are not told."""
    conn.execute(delete(step_events).where(_events.filter_digest == digest))
    conn.execute(update(step_events).where(_events.digest == digest).values(digest=""))


def _event(row: Row[Any]) -> StepEvent:
    return StepEvent(
        row.id,
        row.ae_title,
        row.sop_instance_uid,
        row.kind,
        row.state,
        row.ready,
        row.reason,
        row.progress,
        row.requesting_ae,
        row.digest,
        row.filter_digest,
        row.at,
        row.attempts,
    )
