"""Procedure steps of other providers that this node performs: how far each is. Owns `tasks`; never commits.

A row under work carries a lease: if its worker is killed, the lease runs out and another one takes it up. What may
follow what is data in `domain.performing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, exists, func, literal, or_, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert, storable
from dicom_node.db.moment import UtcDateTime
from dicom_node.db.schema import deliveries, objects, reports, tasks, work_items
from dicom_node.domain.performing import FINAL, TaskState, check_transition
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind


@dataclass(frozen=True, slots=True)
class Task:
    """One of them. `token` proves that it is this worker who works on it."""

    id: int
    source: str
    sop_instance_uid: str
    transaction_uid: str
    state: TaskState
    study_instance_uid: str
    revision: int | None
    priority: int
    attempts: int
    cancel_requested: bool
    discontinued: str
    reason: str
    started_at: datetime | None
    token: str


def add(
    conn: Connection, *, source: str, sop_instance_uid: str, transaction_uid: str, priority: int, at: datetime
) -> bool:
    """Decide to claim a step; False, and nothing is changed, if it was dealt with before.

    A step that was lost and is scheduled again is claimed again, under the new Transaction UID.
    """
    values = {
        "transaction_uid": transaction_uid,
        "state": TaskState.CLAIMING,
        "priority": priority,
        "attempts": 0,
        "cancel_requested": False,
        "reason": "",
        "due_at": at,
        "updated_at": at,
    }
    statement = insert(conn, tasks).values(
        source=source, sop_instance_uid=sop_instance_uid, created_at=at, **values
    )
    added = statement.on_conflict_do_update(
        index_elements=["source", "sop_instance_uid"], set_=values, where=tasks.c.state == TaskState.LOST
    )
    return conn.execute(added.returning(tasks.c.id)).first() is not None


def claim(conn: Connection, source: str, now: datetime, lease_seconds: float, token: str) -> Task | None:
    """Take the task of a source that is due, the most urgent first; None where none is."""
    answered = exists().where(
        reports.c.study_instance_uid == tasks.c.study_instance_uid, reports.c.revision == tasks.c.revision
    )
    due = (
        select(tasks.c.id)
        .where(
            tasks.c.source == source,
            tasks.c.state.not_in(FINAL),
            or_(tasks.c.lease_until.is_(None), tasks.c.lease_until <= now),
            or_(tasks.c.due_at <= now, and_(tasks.c.state == TaskState.WAITING, answered)),
        )
        .order_by(tasks.c.priority, tasks.c.due_at, tasks.c.id)
        .limit(1)
        .with_for_update(skip_locked=True, of=tasks)
    )
    row = conn.execute(
        update(tasks)
        .where(tasks.c.id == due.scalar_subquery())
        .values(
            attempts=tasks.c.attempts + 1, lease_token=token, lease_until=now + timedelta(seconds=lease_seconds)
        )
        .returning(tasks)
    ).one_or_none()
    if row is None:
        return None
    return Task(
        row.id,
        row.source,
        row.sop_instance_uid,
        row.transaction_uid,
        TaskState(row.state),
        row.study_instance_uid,
        row.revision,
        row.priority,
        row.attempts,
        row.cancel_requested,
        row.discontinued,
        row.reason,
        row.started_at,
        token,
    )


def move(
    conn: Connection, task: Task, state: TaskState, at: datetime, due_at: datetime | None = None, **values: Any
) -> bool:
    """Give a task its next state and end the lease; False, and nothing is changed, if another has taken it up.

    Attempts are counted anew in each state. `values` are of the columns study_instance_uid, revision, priority,
    attempts, started_at, discontinued, reason.

    Raises
    ------
    IllegalTransitionError
        If that state does not follow the task's.
    """
    check_transition(task.state, state)
    if "reason" in values:
        values["reason"] = storable(str(values["reason"]), 1000)
    if state is not task.state:
        values["attempts"] = 0
    due: Any = literal(due_at or at, UtcDateTime)
    if not task.cancel_requested:  # one that was asked for meanwhile is looked at now
        due = case((tasks.c.cancel_requested, literal(at, UtcDateTime)), else_=due)
    done = conn.execute(
        update(tasks)
        .where(tasks.c.id == task.id, tasks.c.lease_token == task.token)
        .values(state=state, due_at=due, lease_token=None, lease_until=None, updated_at=at, **values)
    )
    if done.rowcount != 1:
        return False
    if state is not task.state:
        events.record(
            conn,
            at,
            f"task.{state}",
            study_instance_uid=values.get("study_instance_uid", task.study_instance_uid),
            source=task.source,
            step=task.sop_instance_uid,
            before=task.state.value,
            reason=values.get("reason", ""),
        )
    return True


def renew(conn: Connection, task: Task, until: datetime) -> bool:
    """Keep a lease; False if another has taken the task up."""
    mine = and_(tasks.c.id == task.id, tasks.c.lease_token == task.token)
    return conn.execute(update(tasks).where(mine).values(lease_until=until)).rowcount == 1


def request_cancel(conn: Connection, sop_instance_uid: str, at: datetime) -> bool:
    """Note that somebody asks for a step to be canceled; False where this node does not perform it."""
    asked = (
        update(tasks)
        .where(tasks.c.sop_instance_uid == sop_instance_uid, tasks.c.state.not_in(FINAL))
        .values(cancel_requested=True, due_at=at, updated_at=at)
    )
    return conn.execute(asked).rowcount > 0


def set_back(conn: Connection, now: datetime, tolerance_seconds: float) -> int:
    """Put right the tasks that were changed in what is now the future, because the clock went back; return how many.

    They are due now, and their leases begin anew. Machines may be `tolerance_seconds` apart.
    """
    tolerance = timedelta(seconds=tolerance_seconds)
    leased = case((tasks.c.lease_until.is_not(None), literal(now + tolerance, UtcDateTime)))
    ahead = update(tasks).where(tasks.c.state.not_in(FINAL), tasks.c.updated_at > now + tolerance)
    return conn.execute(ahead.values(due_at=now, lease_until=leased, updated_at=now)).rowcount


def known(conn: Connection, source: str, sop_instance_uids: Sequence[str]) -> set[str]:
    """Return which of some steps are dealt with already."""
    rows = conn.execute(
        select(tasks.c.sop_instance_uid).where(
            tasks.c.source == source,
            tasks.c.sop_instance_uid.in_(sop_instance_uids),
            tasks.c.state != TaskState.LOST,
        )
    )
    return set(rows.scalars())


def under_way(conn: Connection, source: str) -> int:
    """Return how many steps of a source this node has begun and not ended."""
    begun = select(func.count()).where(tasks.c.source == source, tasks.c.state.not_in(FINAL))
    return int(conn.execute(begun).scalar_one())


def analysis(conn: Connection, study_instance_uid: str, revision: int) -> State | None:
    """Return how far the analysis of a revision is, None where it is not asked for yet."""
    found = select(work_items.c.state).where(
        work_items.c.study_instance_uid == study_instance_uid,
        work_items.c.revision == revision,
        work_items.c.kind == Kind.ANALYSE,
    )
    state = conn.execute(found).scalar_one_or_none()
    return None if state is None else State(state)


@dataclass(frozen=True, slots=True)
class Sent:
    """A report's way to one destination: its work, whether it was stored there, as which class, and confirmed."""

    destination: str
    state: State
    stored: bool
    sent_as: str
    confirmed: str


def sendings(
    conn: Connection, study_instance_uid: str, revision: int, sop_instance_uid: str
) -> tuple[Sent, ...]:
    """Return where a report goes and how far each is."""
    rows = conn.execute(
        select(
            work_items.c.destination,
            work_items.c.state,
            deliveries.c.id,
            deliveries.c.sent_as,
            deliveries.c.confirmed,
        )
        .select_from(work_items)
        .outerjoin(
            deliveries,
            and_(
                deliveries.c.destination == work_items.c.destination,
                deliveries.c.sop_instance_uid == sop_instance_uid,
            ),
        )
        .where(
            work_items.c.study_instance_uid == study_instance_uid,
            work_items.c.revision == revision,
            work_items.c.kind == Kind.DELIVER,
        )
        .order_by(work_items.c.destination)
    )
    return tuple(
        Sent(row.destination, State(row.state), row.id is not None, row.sent_as or "", row.confirmed or "")
        for row in rows
    )


def listing(conn: Connection, limit: int = 500) -> tuple[dict[str, Any], ...]:
    """Return tasks: those that have not ended, then the others, each the newest first."""
    ended = tasks.c.state.in_(FINAL)
    rows = conn.execute(
        select(
            tasks.c.source,
            tasks.c.sop_instance_uid,
            tasks.c.state,
            tasks.c.study_instance_uid,
            tasks.c.revision,
            tasks.c.priority,
            tasks.c.attempts,
            tasks.c.discontinued,
            tasks.c.reason,
            case((ended, None), else_=tasks.c.due_at).label("due_at"),
            tasks.c.created_at,
            tasks.c.updated_at,
        )
        .order_by(case((ended, 1), else_=0), tasks.c.id.desc())
        .limit(limit)
    )
    return tuple(dict(row) for row in rows.mappings())


def objects_sent(conn: Connection, report_sop_instance_uid: str) -> tuple[tuple[str, str, str, str], ...]:
    """Return (series, SOP class, SOP instance, destination) of what lies beside a report and was stored somewhere."""
    rows = conn.execute(
        select(
            objects.c.series_instance_uid,
            objects.c.sop_class_uid,
            objects.c.sop_instance_uid,
            deliveries.c.destination,
        )
        .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
        .where(objects.c.report_sop_instance_uid == report_sop_instance_uid)
        .order_by(objects.c.id, deliveries.c.destination)
    )
    return tuple((row[0], row[1], row[2], row[3]) for row in rows)
