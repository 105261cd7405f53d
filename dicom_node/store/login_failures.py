"""Counts failures to log in, for every process together. Owns their table; never commits."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, delete, select

from dicom_node.db.dialect import insert
from dicom_node.db.schema import login_failures

FORGOTTEN_AFTER = timedelta(hours=1)


def add(conn: Connection, who: Collection[str], at: datetime) -> None:
    """Note a failure of each; those of an hour ago are forgotten, anybody's."""
    conn.execute(delete(login_failures).where(login_failures.c.last_at < at - FORGOTTEN_AFTER))
    for one in sorted(who):  # in one order: two that fail at once never wait for each other
        known = login_failures.c
        statement = insert(conn, login_failures).values(who=one, failures=1, last_at=at)
        conn.execute(
            statement.on_conflict_do_update(
                index_elements=["who"],
                set_={
                    "failures": case((known.failures < 1000, known.failures + 1), else_=known.failures),
                    "last_at": at,
                },
            )
        )


def of(conn: Connection, who: str, now: datetime) -> tuple[int, datetime]:
    """Return how often somebody failed within the last hour, and when last."""
    row = conn.execute(select(login_failures).where(login_failures.c.who == who)).one_or_none()
    if row is None or now - row.last_at > FORGOTTEN_AFTER:
        return 0, now
    return row.failures, row.last_at


def forget(conn: Connection, who: str) -> None:
    """Forget the failures of somebody who was right."""
    conn.execute(delete(login_failures).where(login_failures.c.who == who))
