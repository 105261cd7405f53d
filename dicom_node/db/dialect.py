"""Smooths over the two databases where SQLAlchemy itself does not. Owns no table."""

from __future__ import annotations

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert(conn: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT that knows ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return postgresql.insert(table) if conn.dialect.name == "postgresql" else sqlite.insert(table)


def storable(text: str, limit: int | None = None) -> str:
    """Return text that came from outside as both databases can hold it.

    PostgreSQL takes neither U+0000 nor lone surrogates; each becomes a visible mark. Text beyond `limit`
    characters is cut, which PostgreSQL would refuse and SQLite would keep.
    """
    clean = text.encode("utf-8", "replace").decode("utf-8").replace("\x00", "\ufffd")
    return clean if limit is None else clean[:limit]
