"""Keeps account of the procedure steps this node offers. Never commits. See `step_following` for what moves them."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, literal, select, tuple_, update

from dicom_node.db.dialect import insert, storable
from dicom_node.db.schema import work_items
from dicom_node.db.schema_steps import procedure_steps
from dicom_node.db.schema_steps import step_events as step_events_table
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.procedure_steps import Step
from dicom_node.domain.states import State
from dicom_node.store import step_events, step_files, step_subscriptions
from dicom_node.store.files import FileStore

_steps = procedure_steps.c
_items = work_items.c


def add(
    conn: Connection,
    sop_instance_uid: str,
    study_instance_uid: str,
    *,
    priority: int,
    digest: str,
    asked_by: str,
    at: datetime,
    item_id: int | None = None,
    revision: int | None = None,
    archive: str = "",
    assigned: bool = False,
) -> bool:
    """Add a step that a peer asked for, owing its subscribers the events; False if one of that UID is known.

    Parameters
    ----------
    item_id, revision
        Of the analysis that the step stands for, where it is asked for already.
    assigned
        Whether its creator said who is to perform it; else the node itself is, once the input is here.

    Raises
    ------
    OutOfResourcesError
        If too many wait.
    """
    waiting = select(func.count()).select_from(procedure_steps)
    waiting = waiting.where(_steps.state == ups.SCHEDULED, _steps.digest != "")
    if conn.execute(waiting).scalar_one() >= ups.MOST_STEPS:
        raise OutOfResourcesError(f"{ups.MOST_STEPS} procedure steps wait; ask again when some are done")
    assigned = assigned or item_id is not None
    added = put(
        conn,
        sop_instance_uid=sop_instance_uid,
        study_instance_uid=study_instance_uid,
        work_item_id=item_id,
        generation=0,
        revision=revision,
        state=ups.SCHEDULED,
        priority=priority,
        digest=digest,
        asked_by=storable(asked_by, 16),
        archive=archive,
        fetch_at=at if archive else None,
        assigned=assigned,
        created_at=at,
        updated_at=at,
    )
    if added:
        step_events.tell(conn, sop_instance_uid, ups.SCHEDULED, at)
        if assigned:
            step_events.tell(conn, sop_instance_uid, ups.SCHEDULED, at, kind=ups.ASSIGNED)
    return added


def get(conn: Connection, sop_instance_uid: str) -> Step | None:
    """Return a step, None if there is none of that UID."""
    row = conn.execute(select(procedure_steps).where(_steps.sop_instance_uid == sop_instance_uid)).one_or_none()
    return None if row is None else _step(row)


def newest(
    conn: Connection,
    states: Collection[str] = (),
    uids: Collection[str] = (),
    studies: Collection[str] = (),
    limit: int = 5000,
) -> tuple[Step, ...]:
    """Return steps, the newest first, all or those in some states, of some UIDs, about some studies."""
    query = select(procedure_steps).order_by(_steps.created_at.desc(), _steps.sop_instance_uid).limit(limit)
    if states:
        query = query.where(_steps.state.in_(states))
    if uids:
        query = query.where(_steps.sop_instance_uid.in_(uids))
    if studies:
        query = query.where(_steps.study_instance_uid.in_(studies))
    return tuple(_step(row) for row in conn.execute(query))


def alone(conn: Connection, sop_instance_uid: str, item_id: int) -> bool:
    """Return whether no other step that goes on stands for a work item."""
    others = select(_steps.sop_instance_uid).where(
        _steps.work_item_id == item_id,
        _steps.sop_instance_uid != sop_instance_uid,
        _steps.state.not_in(ups.FINAL),
    )
    return conn.execute(others.limit(1)).first() is None


def end(conn: Connection, sop_instance_uid: str, reason: str, at: datetime, item_id: int | None = None) -> bool:
    """Cancel a step that has no work item yet, or leaves this one to others; False if it has another or has ended."""
    ended = conn.execute(
        update(procedure_steps)
        .where(
            _steps.sop_instance_uid == sop_instance_uid,
            _steps.state == ups.SCHEDULED,
            _steps.work_item_id.is_(None) if item_id is None else _steps.work_item_id == item_id,
        )
        .values(
            state=ups.CANCELED,
            reason=storable(reason),
            ended_at=at,
            updated_at=at,
            fetch_at=None,
            current=item_id is None,
        )
    )
    if ended.rowcount == 1:  # PS3.4 section CC.2.2.3: first IN PROGRESS, then CANCELED
        step_events.tell(conn, sop_instance_uid, ups.IN_PROGRESS, at)
        step_events.tell(conn, sop_instance_uid, ups.CANCELED, at, reason=reason)
    return ended.rowcount == 1


def to_fetch(conn: Connection, now: datetime, again_at: datetime) -> tuple[str, str, str, int] | None:
    """Return (step, study, archive, attempts) of a step whose images are to be fetched now; no other gets it soon."""
    first = conn.execute(
        select(procedure_steps)
        .where(_steps.fetch_at <= now, _steps.state == ups.SCHEDULED, _steps.work_item_id.is_(None))
        .order_by(_steps.priority, _steps.fetch_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if first is None:
        return None
    conn.execute(
        update(procedure_steps)
        .where(_steps.sop_instance_uid == first.sop_instance_uid)
        .values(fetch_at=again_at, attempts=_steps.attempts + 1)
    )
    return first.sop_instance_uid, first.study_instance_uid, first.archive, first.attempts + 1


def fetched(conn: Connection, sop_instance_uid: str) -> None:
    """Fetch no more for a step: its images are here."""
    conn.execute(
        update(procedure_steps).where(_steps.sop_instance_uid == sop_instance_uid).values(fetch_at=None)
    )


def digests(conn: Connection) -> set[str]:
    """Return the digests of all data sets that creators sent."""
    return set(conn.execute(select(_steps.digest).where(_steps.digest != "")).scalars())


def lose(conn: Connection, digest: str) -> tuple[str, ...]:
    """Note that a creator's data set is lost: its step says what the images say; return the step's UID."""
    lost = update(procedure_steps).where(_steps.digest == digest).values(digest="")
    return tuple(conn.execute(lost.returning(_steps.sop_instance_uid)).scalars())


def over(conn: Connection, before: datetime, after: tuple[datetime, str], limit: int) -> tuple[Step, ...]:
    """Return steps that ended before a moment, the oldest first; one whose work item may still go on stays.

    Parameters
    ----------
    after
        When the step ended, and its UID, behind which to go on.
    """
    waits = exists().where(_items.id == _steps.work_item_id, _items.state == State.FAILED)
    owed = exists().where(step_events_table.c.sop_instance_uid == _steps.sop_instance_uid)
    rows = conn.execute(
        select(procedure_steps)
        .where(
            _steps.state.in_(ups.FINAL),
            _steps.ended_at < before,
            tuple_(_steps.ended_at, _steps.sop_instance_uid)
            > tuple_(literal(after[0], _steps.ended_at.type), literal(after[1])),
            ~waits,
            ~owed,
        )
        .order_by(_steps.ended_at, _steps.sop_instance_uid)
        .limit(limit)
    )
    return tuple(map(_step, rows))


def held_beyond(conn: Connection, before: datetime) -> int:
    """Return how many steps are kept that ended before a moment."""
    ended = select(func.count()).select_from(procedure_steps)
    return conn.execute(ended.where(_steps.state.in_(ups.FINAL), _steps.ended_at < before)).scalar_one()


def remove(conn: Connection, files: FileStore, sop_instance_uid: str) -> bool:
    """Remove a step that has ended, its data set first; False if it is not there any more.

    A death in between leaves a row without a file, which the next call removes.
    """
    row = conn.execute(
        select(_steps.digest)
        .where(_steps.sop_instance_uid == sop_instance_uid, _steps.state.in_(ups.FINAL))
        .with_for_update()
    ).one_or_none()
    if row is None:
        return False
    if row.digest:
        step_files.remove(files, row.digest)
    conn.execute(delete(procedure_steps).where(_steps.sop_instance_uid == sop_instance_uid))
    step_subscriptions.forget(conn, sop_instance_uid)
    return True


def oldest(conn: Connection) -> datetime | None:
    """Return when the oldest step that is kept was made."""
    return conn.execute(select(func.min(_steps.created_at))).scalar_one_or_none()


def put(conn: Connection, **values: Any) -> bool:
    """Add a row; False if one of that UID is there."""
    added = conn.execute(
        insert(conn, procedure_steps)
        .values(**values)
        .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
        .returning(_steps.sop_instance_uid)
    ).scalar_one_or_none()
    return added is not None


def _step(row: Row[Any]) -> Step:
    return Step(
        row.sop_instance_uid,
        row.study_instance_uid,
        row.work_item_id,
        row.revision,
        row.state,
        row.priority,
        row.digest,
        row.created_at,
        row.started_at,
        row.ended_at,
        row.updated_at,
        row.reason,
        row.attempts,
    )
