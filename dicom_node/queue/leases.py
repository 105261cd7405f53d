"""Who works on what: claim, heartbeat, acknowledge, rescue. Never commits, and owns no clock and no randomness.

A lease is proven by its token, which is new at every claim and gone as soon as the item is rescued, canceled or
finished. Each statement that acts for a lease is conditional on the token: one who lost it changes nothing.
Whether a lease has run out is judged by the caller's clock: machines that share a queue must agree on the time
to within a fraction of ``queue.lease_seconds``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, select, update

from dicom_node.db.dialect import storable
from dicom_node.db.schema import work_items
from dicom_node.domain.errors import LeaseLostError
from dicom_node.domain.states import Action, State, next_state, sources
from dicom_node.domain.types import Done, Kind, Lease, Outcome, Retry
from dicom_node.queue.items import NO_LEASE, item, record

_LIMITS_LOCK = 0x6C696D69
"""Name of the lock under which it is counted how many items are worked on (PostgreSQL)."""


def claim(
    conn: Connection,
    owner: str,
    now: datetime,
    lease_seconds: float,
    token: str,
    kinds: Collection[Kind] | None = None,
    destination: str | None = None,
    limits: Mapping[str, int] | None = None,
    without: Collection[str] = (),
    patience_seconds: float | None = None,
) -> Lease | None:
    """Take the item that is due first, or None: one statement, safe among any number of workers.

    Parameters
    ----------
    conn
        An open transaction that may write.
    owner
        Shown beside the lease, for people.
    now, lease_seconds
        The lease ends at their sum.
    token
        A new random UUID.
    kinds
        What this worker can do; None for everything.
    destination
        Only items for this one.
    limits
        By destination, how many items for it may be worked on at a time; more are left for later.
    without
        Destinations whose items are left for later.
    patience_seconds
        An item that has been due for longer goes before every other, whatever its priority: none waits for ever behind
        urgent ones. None for no such bound.

    Returns
    -------
    Lease or None
        By smallest priority, then longest due; the revisions of a study are analysed one after the other, so
        that each report can name the one it supersedes. The attempt now begun is counted already, and `reason`
        still says why the last one ended.
    """
    earlier = work_items.alias()
    out_of_turn = exists().where(
        work_items.c.kind == Kind.ANALYSE,
        earlier.c.kind == Kind.ANALYSE,
        earlier.c.study_instance_uid == work_items.c.study_instance_uid,
        earlier.c.revision < work_items.c.revision,
        earlier.c.state.in_([State.SCHEDULED, State.IN_PROGRESS]),
    )
    ready = select(work_items.c.id).where(work_items.c.state.in_(sources(Action.CLAIM)), ~out_of_turn)
    if kinds is not None:
        ready = ready.where(work_items.c.kind.in_(sorted(kinds)))
    if destination is not None:
        ready = ready.where(work_items.c.destination == destination)
    if left := {*without, *_full(conn, limits or {})}:
        ready = ready.where(work_items.c.destination.not_in(sorted(left)))
    due = _first(ready, now, work_items.c.priority)
    if patience_seconds is not None:
        due = func.coalesce(_first(ready, now - timedelta(seconds=patience_seconds)), due)
    until = now + timedelta(seconds=lease_seconds)
    row = conn.execute(
        update(work_items)
        .where(work_items.c.id == due)
        .values(
            state=next_state(State.SCHEDULED, Action.CLAIM),
            attempts=work_items.c.attempts + 1,
            lease_token=token,
            lease_owner=storable(owner, 128),
            lease_until=until,
            updated_at=now,
        )
        .returning(work_items)
    ).one_or_none()
    if row is None:
        return None
    claimed = item(row)
    record(conn, now, "workitem.claimed", replace(claimed, reason=""), owner=row.lease_owner)
    return Lease(item=claimed, token=token, owner=row.lease_owner, until=until)


def _first(ready: Select[int], by: datetime, *turn: ColumnElement[Any]) -> ColumnElement[int]:
    """Return the item due by `by` that is first in turn, then longest due; an index each has that order."""
    return (
        ready.where(work_items.c.available_at <= by)
        .order_by(*turn, work_items.c.available_at, work_items.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )


def _full(conn: Connection, limits: Mapping[str, int]) -> list[str]:
    """Return the destinations for which no more items may be begun; until the transaction ends nobody else looks."""
    if not limits:
        return []
    if conn.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
        conn.execute(select(func.pg_advisory_xact_lock(_LIMITS_LOCK)))
    rows = conn.execute(
        select(work_items.c.destination, func.count())
        .where(work_items.c.state == State.IN_PROGRESS, work_items.c.kind == Kind.DELIVER)
        .group_by(work_items.c.destination)
    )
    return [name for name, number in rows if number >= limits.get(name, number + 1)]


def heartbeat(conn: Connection, lease: Lease, now: datetime, lease_seconds: float) -> Lease:
    """Extend a lease to `now` + `lease_seconds`. One that ran out can still be extended while nobody took it.

    Raises
    ------
    LeaseLostError
        If the item was rescued, canceled or finished since.
    """
    until = now + timedelta(seconds=lease_seconds)
    extended = conn.execute(
        update(work_items)
        .where(work_items.c.id == lease.item.id, work_items.c.lease_token == lease.token)
        .values(lease_until=until, updated_at=now)
    )
    if extended.rowcount != 1:
        raise _lost(lease)
    return replace(lease, until=until)


def acknowledge(
    conn: Connection,
    lease: Lease,
    outcome: Outcome,
    now: datetime,
    retry_at: datetime | None = None,
    *,
    counted: bool = True,
) -> State:
    """Say what became of the work; return the item's new state.

    Done makes it COMPLETED; Retry makes it SCHEDULED again at `retry_at`, with the attempt taken back where it
    is not `counted`; Refuse makes it FAILED.

    Raises
    ------
    LeaseLostError
        If the item was rescued, canceled or finished since, or the lease has run out (extend it first, if that
        is still possible). Nothing is changed then, and the caller's transaction must write nothing else.
    ValueError
        If a Retry comes without `retry_at`.
    """
    values: dict[str, object] = {}
    if isinstance(outcome, Done):
        action, reason = Action.COMPLETE, outcome.note
    elif isinstance(outcome, Retry):
        if retry_at is None:
            raise ValueError(f"work item {lease.item.id}: a Retry needs the moment of the next attempt")
        action, reason = Action.RETRY, outcome.reason
        values["available_at"] = retry_at
        if not counted:
            values["attempts"] = lease.item.attempts - 1
    else:
        action, reason = Action.FAIL, outcome.reason
    state = next_state(State.IN_PROGRESS, action)
    row = conn.execute(
        update(work_items)
        .where(
            work_items.c.id == lease.item.id,
            work_items.c.lease_token == lease.token,
            work_items.c.state == State.IN_PROGRESS,
            work_items.c.lease_until > now,
        )
        .values(state=state, reason=storable(reason), updated_at=now, **NO_LEASE, **values)
        .returning(work_items)
    ).one_or_none()
    if row is None:
        raise _lost(lease)
    kind = "workitem.retry" if action is Action.RETRY else f"workitem.{state.value.lower()}"
    record(conn, now, kind, item(row), owner=lease.owner)
    return state


def expired(conn: Connection, now: datetime) -> bool:
    """Return whether there is anything to rescue; needs no transaction that may write."""
    return conn.execute(_expired(now).limit(1)).first() is not None


def rescue(conn: Connection, now: datetime) -> int:
    """Schedule the items again whose lease has run out; return how many. Their attempts stay counted."""
    rows = conn.execute(
        _expired(now)
        .add_columns(work_items.c.lease_owner)
        .order_by(work_items.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        reason = f"the lease of {row.lease_owner} ran out: its process died or lost the database"
        rescued = conn.execute(
            update(work_items)
            .where(work_items.c.id == row.id)
            .values(
                state=next_state(State.IN_PROGRESS, Action.EXPIRE),
                reason=reason,
                available_at=now,
                updated_at=now,
                **NO_LEASE,
            )
            .returning(work_items)
        ).one()
        record(conn, now, "workitem.expired", item(rescued), owner=row.lease_owner)
    return len(rows)


def set_back(conn: Connection, now: datetime, tolerance_seconds: float) -> int:
    """Put right the items that were changed in what is now the future, because the clock went back; return how many.

    Their waits and leases begin anew now, as long as they were: without this, they would last until the clock has
    caught up. Machines that share a queue may be `tolerance_seconds` apart.
    """
    ahead = conn.execute(
        select(work_items)
        .where(
            work_items.c.state.in_([State.SCHEDULED, State.IN_PROGRESS]),
            work_items.c.updated_at > now + timedelta(seconds=tolerance_seconds),
        )
        .order_by(work_items.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in ahead:
        by = row.updated_at - now
        conn.execute(
            update(work_items)
            .where(work_items.c.id == row.id)
            .values(
                updated_at=now,
                available_at=row.available_at - by,
                lease_until=row.lease_until and row.lease_until - by,
            )
        )
    return len(ahead)


def _expired(now: datetime) -> Select[Any]:
    return select(work_items.c.id).where(
        work_items.c.state.in_(sources(Action.EXPIRE)), work_items.c.lease_until <= now
    )


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(
        f"the lease of {lease.owner} on work item {lease.item.id} (study {lease.item.study_instance_uid}, "
        f"revision {lease.item.revision}) has run out or was taken away; what it did is not counted"
    )
