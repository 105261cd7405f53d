"""Appends to the history, and reads what is new in it. The caller's transaction decides whether it happened."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from dicom_node.db import schema


def record(
    conn: Connection,
    at: datetime,
    kind: str,
    *,
    study_instance_uid: str = "",
    work_item_id: int | None = None,
    **detail: Any,
) -> None:
    """Append one event. `kind` is a constant such as "instance.stored"; `detail` holds no patient attribute."""
    conn.execute(
        insert(schema.events).values(
            at=at, kind=kind, study_instance_uid=study_instance_uid, work_item_id=work_item_id, detail=detail
        )
    )


OF_IMAGES = frozenset({"instance.stored", "instance.again", "instance.lost", "study.pruned"})
"""Kinds of events after which other images of a study are held than before."""

_AT_ONCE = 2_000


def last(conn: Connection) -> int:
    """Return the number of the last event, 0 before the first."""
    return int(conn.execute(select(func.coalesce(func.max(schema.events.c.id), 0))).scalar_one())


def since(conn: Connection, after: int, kinds: Collection[str] = ()) -> tuple[int, tuple[str, ...]]:
    """Return how far the events behind one were looked at, and the studies they are about ("" for the node), each once.

    Parameters
    ----------
    after
        The number of an event.
    kinds
        Only events of these; all if empty. Others are passed over.

    Returns
    -------
    tuple
        The number of the last event looked at, `after` where there is none; at most 2000 are looked at.
    """
    table = schema.events
    rows = conn.execute(
        select(table.c.id, table.c.kind, table.c.study_instance_uid)
        .where(table.c.id > after)
        .order_by(table.c.id)
        .limit(_AT_ONCE)
    ).all()
    studies = dict.fromkeys(row.study_instance_uid for row in rows if not kinds or row.kind in kinds)
    return (rows[-1].id if rows else after), tuple(studies)


def latest(conn: Connection, kinds: Collection[str], limit: int, within: int = 100_000) -> tuple[Row[Any], ...]:
    """Return the last events of some kinds, the newest first, out of the last `within` of all."""
    table = schema.events
    newest = select(func.coalesce(func.max(table.c.id), 0)).scalar_subquery()
    query = select(table).where(table.c.id > newest - within, table.c.kind.in_(kinds))
    return tuple(conn.execute(query.order_by(table.c.id.desc()).limit(limit)))
