"""Studies that are fetched from archives in bulk: one row each, with its state. Owns `retrievals`; never commits.

A row under work carries a lease: if its worker is killed, the lease runs out and another one takes the study up. To
fetch it again does no harm, so nothing more is needed to go on after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, case, func, literal, or_, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert
from dicom_node.db.moment import UtcDateTime
from dicom_node.db.schema import reports, retrievals, revisions, work_items
from dicom_node.domain.retrieval import Fetched
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind

DUE, FETCHING, FETCHED, SKIPPED = "due", "fetching", "fetched", "skipped"
FAILED, CANCELED = "failed", "canceled"
STATES = (DUE, FETCHING, FETCHED, SKIPPED, FAILED, CANCELED)

_EVENTS = {FETCHED: "retrieval.fetched", FAILED: "retrieval.failed"}
_AGAIN = (FAILED, CANCELED)
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Claimed:
    """A study that was asked for `since` then and is being fetched; `token` proves that it is this worker who does."""

    id: int
    archive: str
    study_instance_uid: str
    priority: int
    attempts: int
    since: datetime
    token: str


def add(conn: Connection, archive: str, studies: Iterable[str], priority: int, at: datetime) -> int:
    """Ask for studies; those that failed or were canceled are asked for again. Return how many are due by that."""
    wanted = list(dict.fromkeys(studies))
    changed = 0
    for start in range(0, len(wanted), _ROWS):
        some = wanted[start : start + _ROWS]
        rows = [
            {
                "archive": archive,
                "study_instance_uid": study,
                "state": DUE,
                "priority": priority,
                "due_at": at,
                "created_at": at,
                "updated_at": at,
            }
            for study in some
        ]
        added = insert(conn, retrievals).values(rows).on_conflict_do_nothing().returning(retrievals.c.id)
        changed += len(conn.execute(added).all())
        again = (
            update(retrievals)
            .where(
                retrievals.c.archive == archive,
                retrievals.c.study_instance_uid.in_(some),
                retrievals.c.state.in_(_AGAIN),
            )
            .values(state=DUE, priority=priority, attempts=0, due_at=at, updated_at=at, reason="")
        )
        changed += conn.execute(again).rowcount
    return changed


def claim(conn: Connection, archive: str, now: datetime, lease_seconds: float, token: str) -> Claimed | None:
    """Take the study of an archive that is due first, or whose worker has been gone for long; None where none is."""
    due = (
        select(retrievals.c.id)
        .where(
            retrievals.c.archive == archive,
            or_(
                and_(retrievals.c.state == DUE, retrievals.c.due_at <= now),
                and_(retrievals.c.state == FETCHING, retrievals.c.lease_until <= now),
            ),
        )
        .order_by(retrievals.c.priority, retrievals.c.due_at, retrievals.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = conn.execute(
        update(retrievals)
        .where(retrievals.c.id == due.scalar_subquery())
        .values(
            state=FETCHING,
            attempts=retrievals.c.attempts + 1,
            lease_token=token,
            lease_until=now + timedelta(seconds=lease_seconds),
            updated_at=now,
        )
        .returning(retrievals)
    ).one_or_none()
    if row is None:
        return None
    return Claimed(
        row.id, row.archive, row.study_instance_uid, row.priority, row.attempts, row.created_at, token
    )


def finish(
    conn: Connection,
    claimed: Claimed,
    state: str,
    at: datetime,
    fetched: Fetched | None = None,
    *,
    reason: str = "",
    due_at: datetime | None = None,
) -> bool:
    """Note what became of a study; False, and nothing is changed, if another worker has taken it up since."""
    values: dict[str, Any] = {
        "state": state,
        "lease_token": None,
        "lease_until": None,
        "reason": reason[:1000],
        "updated_at": at,
    }
    if fetched is not None:
        values |= {"stored": fetched.stored, "failed": fetched.failed, "expected": fetched.expected}
    if due_at is not None:
        values["due_at"] = due_at
    mine = and_(retrievals.c.id == claimed.id, retrievals.c.lease_token == claimed.token)
    if conn.execute(update(retrievals).where(mine).values(values)).rowcount != 1:
        return False
    if state in _EVENTS:
        events.record(
            conn,
            at,
            _EVENTS[state],
            study_instance_uid=claimed.study_instance_uid,
            archive=claimed.archive,
            stored=fetched.stored if fetched else 0,
            failed=fetched.failed if fetched else 0,
            reason=reason[:1000],
        )
    return True


def set_back(conn: Connection, now: datetime, tolerance_seconds: float) -> int:
    """Put right the studies that were changed in what is now the future; as `tasks.set_back`.

    Those that were fetched are among them: they count for the rate.
    """
    tolerance = timedelta(seconds=tolerance_seconds)
    leased = case((retrievals.c.lease_until.is_not(None), literal(now + tolerance, UtcDateTime)))
    ahead = update(retrievals).where(retrievals.c.updated_at > now + tolerance)
    return conn.execute(ahead.values(due_at=now, lease_until=leased, updated_at=now)).rowcount


def cancel(conn: Connection, archive: str, at: datetime) -> int:
    """Cancel what is due of an archive ("" for all); return how many. What is being fetched now is finished."""
    due = retrievals.c.state == DUE
    where = and_(due, retrievals.c.archive == archive) if archive else due
    return conn.execute(update(retrievals).where(where).values(state=CANCELED, updated_at=at)).rowcount


def counts(conn: Connection) -> list[dict[str, Any]]:
    """Return for each archive how many studies are in which state, and how many images were stored."""
    rows = conn.execute(
        select(
            retrievals.c.archive,
            retrievals.c.state,
            func.count(),
            func.sum(retrievals.c.stored),
            func.max(retrievals.c.updated_at),
        )
        .group_by(retrievals.c.archive, retrievals.c.state)
        .order_by(retrievals.c.archive)
    )
    told: dict[str, dict[str, Any]] = {}
    for archive, state, studies, images, updated_at in rows:
        one = told.setdefault(
            archive, {"archive": archive, **dict.fromkeys(STATES, 0), "images": 0, "updated_at": updated_at}
        )
        one[state] = int(studies)
        one["images"] += int(images or 0)
        one["updated_at"] = max(one["updated_at"], updated_at)
    return list(told.values())


def failures(conn: Connection, most: int) -> list[dict[str, Any]]:
    """Return the studies that failed last, and why."""
    rows = conn.execute(
        select(
            retrievals.c.archive, retrievals.c.study_instance_uid, retrievals.c.attempts, retrievals.c.reason
        )
        .where(retrievals.c.state == FAILED)
        .order_by(retrievals.c.updated_at.desc())
        .limit(most)
    )
    return [dict(row) for row in rows.mappings()]


def stored_since(conn: Connection, archive: str, since: datetime) -> int:
    """Return how many images came from an archive in bulk since a moment."""
    images = select(func.coalesce(func.sum(retrievals.c.stored), 0)).where(
        retrievals.c.archive == archive, retrievals.c.updated_at > since
    )
    return int(conn.execute(images).scalar_one())


def waiting_studies(conn: Connection) -> int:
    """Return how many studies are on their way through the node: still arriving, or not analysed yet."""
    arriving = select(func.count()).select_from(revisions).where(revisions.c.closed_at.is_(None))
    queued = (
        select(func.count())
        .select_from(work_items)
        .where(work_items.c.kind == Kind.ANALYSE, work_items.c.state.in_([State.SCHEDULED, State.IN_PROGRESS]))
    )
    return int(conn.execute(arriving).scalar_one()) + int(conn.execute(queued).scalar_one())


def answered(conn: Connection, study_instance_uid: str, by: datetime) -> bool:
    """Return whether there was a report on a study at some moment."""
    made = select(reports.c.id).where(
        reports.c.study_instance_uid == study_instance_uid, reports.c.created_at <= by
    )
    return conn.execute(made.limit(1)).first() is not None
