"""Keeps account of who watches which procedure steps (PS3.4 section CC.2.3). Owns their table; never commits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, func, or_, select, update

from dicom_node.db.dialect import insert, storable
from dicom_node.db.schema_steps import procedure_steps, step_subscriptions
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.procedure_steps import Subscription

_table = step_subscriptions.c


def subscribe(
    conn: Connection,
    ae_title: str,
    sop_instance_uid: str,
    *,
    peer_address: str,
    at: datetime,
    wanted: bool = True,
    lock: bool = False,
    filter_digest: str = "",
) -> None:
    """Note that an AE watches a step or, by a well-known UID, all.

    An AE has one subscription to all: another one takes its place, and with it what was left out of it.

    Raises
    ------
    OutOfResourcesError
        If there are too many subscriptions.
    """
    if sop_instance_uid in ups.EVERYTHING:
        conn.execute(
            delete(step_subscriptions).where(_table.ae_title == ae_title, or_(_to_all(), ~_table.wanted))
        )
    number = conn.execute(select(func.count()).select_from(step_subscriptions)).scalar_one()
    if number >= ups.MOST_SUBSCRIPTIONS:
        raise OutOfResourcesError(f"{number} subscriptions to procedure steps are kept; end some")
    row = {
        "peer_address": storable(peer_address, 64),
        "filter_digest": filter_digest,
        "wanted": wanted,
        "lock": lock,
        "created_at": at,
        "until": None,
    }
    statement = insert(conn, step_subscriptions).values(
        ae_title=ae_title, sop_instance_uid=sop_instance_uid, **row
    )
    conn.execute(statement.on_conflict_do_update(index_elements=["ae_title", "sop_instance_uid"], set_=row))


def unsubscribe(conn: Connection, ae_title: str, sop_instance_uid: str = "") -> None:
    """Forget the subscription of an AE to one step, or all that it has."""
    mine = _table.ae_title == ae_title
    if sop_instance_uid:
        mine &= _table.sop_instance_uid == sop_instance_uid
    conn.execute(delete(step_subscriptions).where(mine))


def suspend(conn: Connection, ae_title: str, at: datetime) -> None:
    """Let an AE that watches all hear nothing of steps made from now on."""
    conn.execute(
        update(step_subscriptions)
        .where(_table.ae_title == ae_title, _to_all(), _table.until.is_(None))
        .values(until=at)
    )


def watching(conn: Connection, sop_instance_uid: str, created_at: datetime) -> tuple[Subscription, ...]:
    """Return the subscription by which each AE watches a step; what it said of this one counts before all."""
    rows = conn.execute(select(step_subscriptions).where(_touching(sop_instance_uid, created_at)))
    return _deciding(rows)


def locking(conn: Connection, sop_instance_uid: str, created_at: datetime) -> tuple[Subscription, ...]:
    """Return the subscriptions that keep a step from being deleted; a filtered one only if the step matches."""
    return tuple(one for one in watching(conn, sop_instance_uid, created_at) if one.lock)


def to_all(conn: Connection) -> tuple[Subscription, ...]:
    """Return the subscriptions to all steps, to those made later too."""
    query = select(step_subscriptions).where(_to_all(), _table.until.is_(None)).order_by(_table.ae_title)
    return tuple(_subscription(row) for row in conn.execute(query))


def watches_all(conn: Connection, ae_title: str) -> bool:
    """Return whether an AE watches all steps, or all that were made before it suspended that."""
    mine = select(_table.ae_title).where(_table.ae_title == ae_title, _to_all())
    return conn.execute(mine).first() is not None


def digests(conn: Connection, ae_title: str | None = None) -> set[str]:
    """Return the digests of the matching keys of filtered subscriptions: of everybody, or of one AE."""
    query = select(_table.filter_digest).where(_table.filter_digest != "")
    if ae_title is not None:
        query = query.where(_table.ae_title == ae_title)
    return set(conn.execute(query).scalars())


def forget(conn: Connection, sop_instance_uid: str) -> None:
    """Forget who watches a step that is no more."""
    conn.execute(delete(step_subscriptions).where(_table.sop_instance_uid == sop_instance_uid))


def forget_idle(conn: Connection, oldest: datetime | None) -> None:
    """Forget subscriptions that no step is left for.

    Those are the ones to all that were suspended before the oldest step was made (None if there is none), and those to
    a step that was removed just when somebody subscribed to it.
    """
    ended = _table.until.is_not(None) if oldest is None else _table.until < oldest
    gone = ~exists().where(procedure_steps.c.sop_instance_uid == _table.sop_instance_uid)
    conn.execute(delete(step_subscriptions).where(or_(and_(_to_all(), ended), and_(~_to_all(), gone))))


def lose(conn: Connection, digest: str) -> tuple[str, ...]:
    """End subscriptions whose matching keys are lost; return whose they were."""
    lost = delete(step_subscriptions).where(_table.filter_digest == digest).returning(_table.ae_title)
    return tuple(conn.execute(lost).scalars())


def _to_all() -> ColumnElement[bool]:
    return _table.sop_instance_uid.in_(ups.EVERYTHING)


def _touching(sop_instance_uid: str, created_at: datetime) -> ColumnElement[bool]:
    in_time = or_(_table.until.is_(None), _table.until >= created_at)
    return or_(_table.sop_instance_uid == sop_instance_uid, and_(_to_all(), in_time))


def _deciding(rows: Iterable[Row[Any]]) -> tuple[Subscription, ...]:
    by_title: dict[str, Subscription] = {}
    for one in sorted(map(_subscription, rows), key=lambda one: one.sop_instance_uid not in ups.EVERYTHING):
        by_title[one.ae_title] = one
    return tuple(one for one in by_title.values() if one.wanted)


def _subscription(row: Row[Any]) -> Subscription:
    return Subscription(
        row.ae_title,
        row.sop_instance_uid,
        row.peer_address,
        row.filter_digest,
        row.wanted,
        row.lock,
        row.until,
    )
