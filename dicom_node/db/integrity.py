"""Asks the database whether it is whole. Knows no table."""

from __future__ import annotations

from sqlalchemy import Connection, text

_MOST = 20


def faults(conn: Connection) -> list[str]:
    """Return what SQLite's own checks find: damaged pages, broken indexes, rows that name what is not there.

    PostgreSQL has no such check built in; there it is always empty (see ``pg_amcheck``).
    """
    if conn.dialect.name != "sqlite":
        return []
    pages = [str(row[0]) for row in conn.execute(text(f"PRAGMA integrity_check({_MOST})"))]
    keys = [
        f"a row of {row[0]} names a row of {row[2]} that is not there"
        for row in conn.execute(text("PRAGMA foreign_key_check"))
    ]
    return [*(page for page in pages if page != "ok"), *keys[:_MOST]]
