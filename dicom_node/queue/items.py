"""Work items as people and the pipeline see them: schedule, look, cancel, requeue. Never commits.

Claiming and finishing is for `leases`. Every change of state goes through `domain.states` and leaves an event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, case, func, literal, or_, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert, storable
from dicom_node.db.moment import UtcDateTime
from dicom_node.db.schema import work_items
from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.states import Action, State, next_state
from dicom_node.domain.types import Kind, WorkItem

ROUTINE = 5
LOW = 9

NO_LEASE: Mapping[str, Any] = {"lease_token": None, "lease_owner": "", "lease_until": None}
"""Column values of an item that nobody works on."""


def schedule(
    conn: Connection,
    kind: Kind,
    study_instance_uid: str,
    revision: int,
    at: datetime,
    destination: str = "",
    priority: int = ROUTINE,
    bank: str = "",
) -> int:
    """Ask for work to be done from `at` on; return the id of its item.

    (kind, study, revision, destination) is asked for once: where there is such an item already, in whatever
    state, it stays as it is and its id is returned.
    """
    added = conn.execute(
        insert(conn, work_items)
        .values(
            kind=kind,
            study_instance_uid=study_instance_uid,
            revision=revision,
            destination=destination,
            priority=priority,
            bank=bank,
            state=State.SCHEDULED,
            attempts=0,
            available_at=at,
            created_at=at,
            updated_at=at,
        )
        .on_conflict_do_nothing(index_elements=["kind", "study_instance_uid", "revision", "destination"])
        .returning(work_items.c.id)
    ).scalar_one_or_none()
    if added is None:
        return int(
            conn.execute(
                select(work_items.c.id).where(
                    work_items.c.kind == kind,
                    work_items.c.study_instance_uid == study_instance_uid,
                    work_items.c.revision == revision,
                    work_items.c.destination == destination,
                )
            ).scalar_one()
        )
    record(conn, at, "workitem.scheduled", get(conn, int(added)))
    return int(added)


def hasten(
    conn: Connection,
    kind: Kind,
    study_instance_uid: str,
    revision: int,
    destination: str,
    now: datetime,
    priority: int = LOW,
) -> None:
    """Let an item that waits be done at once, and as urgently as `priority`; who works on it is not disturbed."""
    waits, less_urgent = work_items.c.available_at > now, work_items.c.priority > priority
    conn.execute(
        update(work_items)
        .where(
            work_items.c.kind == kind,
            work_items.c.study_instance_uid == study_instance_uid,
            work_items.c.revision == revision,
            work_items.c.destination == destination,
            work_items.c.state == State.SCHEDULED,
            or_(waits, less_urgent),
        )
        .values(
            available_at=case((waits, literal(now, UtcDateTime())), else_=work_items.c.available_at),
            priority=case((less_urgent, priority), else_=work_items.c.priority),
            updated_at=now,
        )
    )


def prioritise(conn: Connection, study_instance_uid: str, priority: int, now: datetime) -> tuple[WorkItem, ...]:
    """Give the work of a study that is scheduled another priority; return the items that got it."""
    changed = conn.execute(
        update(work_items)
        .where(
            work_items.c.study_instance_uid == study_instance_uid,
            work_items.c.state == State.SCHEDULED,
            work_items.c.priority != priority,
        )
        .values(priority=priority, updated_at=now)
        .returning(work_items.c.id)
    ).scalars()
    found = tuple(get(conn, int(item_id)) for item_id in sorted(changed))
    for one in found:
        record(conn, now, "workitem.prioritised", one, priority=priority)
    return found


def get(conn: Connection, item_id: int) -> WorkItem:
    """Return one item.

    Raises
    ------
    NotFoundError
        If there is none of that id.
    """
    return _get(conn, item_id, lock=False)


def listing(
    conn: Connection, state: State | None = None, kind: Kind | None = None, limit: int = 100
) -> tuple[WorkItem, ...]:
    """Return items, newest first, all or those in a state or of a kind."""
    query = select(work_items)
    if state is not None:
        query = query.where(work_items.c.state == state)
    if kind is not None:
        query = query.where(work_items.c.kind == kind)
    return tuple(item(row) for row in conn.execute(query.order_by(work_items.c.id.desc()).limit(limit)))


def matching(
    conn: Connection,
    states: Collection[State],
    *,
    kind: Kind | None = None,
    destination: str = "",
    study_instance_uid: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
) -> tuple[WorkItem, ...]:
    """Return the items in one of these states, oldest first, that meet every condition that is given.

    `since` and `until` are about the last change of the item: at the one moment or later, before the other.
    """
    query = select(work_items).where(work_items.c.state.in_(states))
    for column, value in (
        (work_items.c.kind, kind),
        (work_items.c.destination, destination),
        (work_items.c.study_instance_uid, study_instance_uid),
    ):
        if value:
            query = query.where(column == value)
    if since is not None:
        query = query.where(work_items.c.updated_at >= since)
    if until is not None:
        query = query.where(work_items.c.updated_at < until)
    return tuple(item(row) for row in conn.execute(query.order_by(work_items.c.id)))


def asks_for_bank(conn: Connection, name: str) -> bool:
    """Return whether an item that is not finished names a bank."""
    named = select(work_items.c.id).where(
        work_items.c.bank == name, work_items.c.state.not_in([State.COMPLETED, State.CANCELED])
    )
    return conn.execute(named.limit(1)).first() is not None


def of_study(conn: Connection, study_instance_uid: str) -> tuple[WorkItem, ...]:
    """Return the items of a study, oldest first."""
    query = select(work_items).where(work_items.c.study_instance_uid == study_instance_uid)
    return tuple(item(row) for row in conn.execute(query.order_by(work_items.c.id)))


def destinations_before(conn: Connection, study_instance_uid: str, revision: int) -> frozenset[str]:
    """Return where reports to earlier revisions of a study were to be delivered, other than those canceled."""
    rows = conn.execute(
        select(work_items.c.destination).where(
            work_items.c.study_instance_uid == study_instance_uid,
            work_items.c.kind == Kind.DELIVER,
            work_items.c.revision < revision,
            work_items.c.state != State.CANCELED,
        )
    )
    return frozenset(row.destination for row in rows)


def counts(conn: Connection) -> dict[tuple[str, str], int]:
    """Return how many items there are of every (kind, state), zeros included."""
    found = {(kind.value, state.value): 0 for kind in Kind for state in State}
    rows = conn.execute(
        select(work_items.c.kind, work_items.c.state, func.count()).group_by(
            work_items.c.kind, work_items.c.state
        )
    )
    return found | {(kind, state): number for kind, state, number in rows}


def oldest_due(conn: Connection, now: datetime) -> datetime | None:
    """Return since when the longest-waiting item could have been claimed; None if none waits."""
    oldest: datetime | None = conn.execute(
        select(func.min(work_items.c.available_at)).where(
            work_items.c.state == State.SCHEDULED, work_items.c.available_at <= now
        )
    ).scalar_one()
    return oldest


def cancel(conn: Connection, item_id: int, now: datetime, reason: str = "canceled by a person") -> WorkItem:
    """Cancel an item, at once even while someone works on it: the acknowledgement then changes nothing.

    Raises
    ------
    NotFoundError
        If there is none of that id.
    IllegalTransitionError
        If it is already completed or canceled.
    """
    return _change(conn, item_id, Action.CANCEL, now, reason=reason)


def requeue(conn: Connection, item_id: int, now: datetime) -> WorkItem:
    """Schedule a failed or canceled item again, with all its attempts before it.

    Raises
    ------
    NotFoundError
        If there is none of that id.
    IllegalTransitionError
        If it is scheduled, in progress or completed.
    """
    return _change(conn, item_id, Action.REQUEUE, now, reason="", attempts=0, available_at=now)


def item(row: Row[Any]) -> WorkItem:
    """Return the value that a row of `work_items` stands for."""
    return WorkItem(
        id=row.id,
        kind=Kind(row.kind),
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        destination=row.destination,
        priority=row.priority,
        state=State(row.state),
        attempts=row.attempts,
        available_at=row.available_at,
        reason=row.reason,
        bank=row.bank,
    )


def record(conn: Connection, at: datetime, kind: str, changed: WorkItem, **detail: Any) -> None:
    """Append the event of a change to an item; its reason goes along where it has one."""
    if changed.reason:
        detail["reason"] = changed.reason
    events.record(
        conn,
        at,
        kind,
        study_instance_uid=changed.study_instance_uid,
        work_item_id=changed.id,
        work=changed.kind.value,
        revision=changed.revision,
        destination=changed.destination,
        state=changed.state.value,
        attempts=changed.attempts,
        **detail,
    )


def _get(conn: Connection, item_id: int, *, lock: bool) -> WorkItem:
    query = select(work_items).where(work_items.c.id == item_id)
    row = conn.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no work item {item_id}")
    return item(row)


def _change(
    conn: Connection, item_id: int, action: Action, now: datetime, *, reason: str, **values: Any
) -> WorkItem:
    before = _get(conn, item_id, lock=True)
    state = next_state(before.state, action)
    conn.execute(
        update(work_items)
        .where(work_items.c.id == item_id)
        .values(state=state, reason=storable(reason), updated_at=now, **NO_LEASE, **values)
    )
    after = get(conn, item_id)
    record(conn, now, f"workitem.{state.value.lower()}", after, before=before.state.value)
    return after
