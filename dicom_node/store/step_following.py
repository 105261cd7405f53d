"""Brings procedure steps to the state of their work items. Never commits.

`follow` compares the two and, where they differ, changes the step and owes each subscriber the events, in one
transaction. So no event is lost however a process ends.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, exists, func, or_, select, update

from dicom_node.db.schema import work_items
from dicom_node.db.schema_steps import procedure_steps
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.store import step_events
from dicom_node.store.procedure_steps import put

_steps = procedure_steps.c
_items = work_items.c
_AT_ONCE = 500
_UNFINISHED = (State.SCHEDULED, State.IN_PROGRESS)


def follow(conn: Connection, device_uid: str, since: datetime, forgotten: datetime, at: datetime) -> int:
    """Bring every step to the state of its work item; return how many changed.

    Parameters
    ----------
    since
        When steps began: older work gets none.
    forgotten
        Steps that ended before this moment may have been removed: their work gets a new one only if it goes on.
    """
    changed = _bind(conn, at)  # first: a step that was asked for takes the work item
    changed += _again(conn, device_uid, at) + _new(conn, device_uid, since, forgotten, at)
    return changed + _move(conn, at) + _begin_again(conn, at)


def _bind(conn: Connection, at: datetime) -> int:
    """Give steps that wait for their study the work item that analyses it."""
    rows = conn.execute(
        select(
            _steps.sop_instance_uid,
            _steps.assigned,
            func.max(_items.id).label("item"),
            func.max(_items.revision).label("n"),
        )
        .join(work_items, _items.study_instance_uid == _steps.study_instance_uid)
        .where(
            _steps.work_item_id.is_(None),
            _steps.state == ups.SCHEDULED,
            _items.kind == Kind.ANALYSE,
            _items.state != State.CANCELED,
            _items.created_at >= _steps.created_at,
        )
        .group_by(_steps.sop_instance_uid, _steps.assigned)
        .limit(_AT_ONCE)
    ).all()
    for row in rows:
        bound = conn.execute(
            update(procedure_steps)
            .where(_steps.sop_instance_uid == row.sop_instance_uid, _steps.work_item_id.is_(None))
            .values(
                work_item_id=row.item, revision=row.n, updated_at=at, fetch_at=None, attempts=0, assigned=True
            )
        )
        if bound.rowcount != 1:
            continue
        step_events.tell(conn, row.sop_instance_uid, ups.SCHEDULED, at)  # its input is ready now
        if not row.assigned:
            step_events.tell(conn, row.sop_instance_uid, ups.SCHEDULED, at, kind=ups.ASSIGNED)
    return len(rows)


def _again(conn: Connection, device_uid: str, at: datetime) -> int:
    """A step that has ended stays so: a work item that goes on gets another step."""
    rows = conn.execute(
        select(procedure_steps)
        .join(work_items, _items.id == _steps.work_item_id)
        .where(
            _items.kind == Kind.ANALYSE,
            _items.state.in_(_UNFINISHED),
            _steps.current.is_(True),
            _steps.state.in_(ups.FINAL),
        )
        .limit(_AT_ONCE)
    ).all()
    for row in rows:
        conn.execute(
            update(procedure_steps).where(_steps.sop_instance_uid == row.sop_instance_uid).values(current=False)
        )
        _own(conn, device_uid, row, row.work_item_id, row.generation + 1, at)
    return len(rows)


def _new(conn: Connection, device_uid: str, since: datetime, forgotten: datetime, at: datetime) -> int:
    """Make a step for each work item that has none."""
    last = select(func.coalesce(func.max(_steps.work_item_id), 0)).scalar_subquery()
    rows = conn.execute(
        select(_items.id, _items.study_instance_uid, _items.revision, _items.priority, _items.created_at)
        .where(
            _items.kind == Kind.ANALYSE,
            _items.created_at >= since,
            or_(
                and_(_items.id > last - 10_000, _items.created_at >= forgotten),
                _items.state.in_(_UNFINISHED),
            ),
            ~exists().where(_steps.work_item_id == _items.id),
        )
        .order_by(_items.id)
        .limit(_AT_ONCE)
    ).all()
    for row in rows:
        # Old work may have had a step that was removed, whose UID is not used again. Every process counts days alike.
        first = 0 if row.created_at >= forgotten else at.toordinal() * 100
        _own(conn, device_uid, row, row.id, first, at)
    return len(rows)


def _own(conn: Connection, device_uid: str, of: Any, item_id: int, generation: int, at: datetime) -> None:
    uid = ups.own_uid(device_uid, item_id, generation)
    if put(
        conn,
        sop_instance_uid=uid,
        study_instance_uid=of.study_instance_uid,
        work_item_id=item_id,
        generation=generation,
        revision=of.revision,
        state=ups.SCHEDULED,
        priority=of.priority,
        assigned=True,
        created_at=at,
        updated_at=at,
    ):
        step_events.tell(conn, uid, ups.SCHEDULED, at)
        step_events.tell(conn, uid, ups.SCHEDULED, at, kind=ups.ASSIGNED)


def _move(conn: Connection, at: datetime) -> int:
    moved = 0
    for state, step_state in ups.OF_ITEM.items():
        rows = conn.execute(
            select(
                _steps.sop_instance_uid,
                _steps.state,
                _steps.started_at,
                _items.reason,
                _items.updated_at,
                _items.attempts,
            )
            .join(work_items, _items.id == _steps.work_item_id)
            .where(
                _steps.state.in_([ups.SCHEDULED, ups.IN_PROGRESS]),
                _steps.state != step_state,
                _items.state == state,
                # A retry is the performer's own affair: to others the step is still in progress.
                or_(_items.state != State.SCHEDULED, _steps.state == ups.SCHEDULED),
            )
            .limit(_AT_ONCE)
        ).all()
        moved += sum(_moved(conn, row, step_state, at) for row in rows)
    return moved


def _moved(conn: Connection, row: Any, state: str, at: datetime) -> bool:
    uid, final = row.sop_instance_uid, state in ups.FINAL
    reason = row.reason if state == ups.CANCELED else ""
    values: dict[str, Any] = {"state": state, "updated_at": at, "reason": reason, "attempts": row.attempts}
    if row.started_at is None:
        values["started_at"] = at if not final else row.updated_at
    if final:
        values["ended_at"] = row.updated_at
    changed = conn.execute(
        update(procedure_steps)
        .where(_steps.sop_instance_uid == uid, _steps.state == row.state)
        .values(**values)
    )
    if changed.rowcount != 1:
        return False
    if row.state == ups.SCHEDULED:  # PS3.4 CC.1.1: nothing ends without having been in progress
        step_events.tell(conn, uid, ups.IN_PROGRESS, at)
        if state != ups.CANCELED:
            _progress(conn, uid, 0, row.attempts, at)
    if state == ups.COMPLETED:
        _progress(conn, uid, 100, row.attempts, at)
    if final:
        step_events.tell(conn, uid, state, at, reason=reason)
    return True


def _begin_again(conn: Connection, at: datetime) -> int:
    """Tell of analyses that failed and were begun once more, while to others their step is in progress."""
    rows = conn.execute(
        select(_steps.sop_instance_uid, _items.attempts)
        .join(work_items, _items.id == _steps.work_item_id)
        .where(
            _steps.state == ups.IN_PROGRESS,
            _items.state == State.IN_PROGRESS,
            _items.attempts > _steps.attempts,
        )
        .limit(_AT_ONCE)
    ).all()
    for row in rows:
        conn.execute(
            update(procedure_steps)
            .where(_steps.sop_instance_uid == row.sop_instance_uid)
            .values(attempts=row.attempts, updated_at=at)
        )
        _progress(conn, row.sop_instance_uid, 0, row.attempts, at)
    return len(rows)


def _progress(conn: Connection, uid: str, percent: int, attempts: int, at: datetime) -> None:
    told = ups.progress_description(percent, attempts)
    step_events.tell(conn, uid, ups.IN_PROGRESS, at, kind=ups.PROGRESS_REPORT, progress=percent, reason=told)
