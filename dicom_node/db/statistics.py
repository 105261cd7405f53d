"""Lets SQLite count its tables, so that it chooses the right index. PostgreSQL does so by itself (autovacuum)."""

from __future__ import annotations

from sqlalchemy import Engine, text

from dicom_node.db.engine import writing

_ROWS = 1000
"""How many rows of an index are looked at: enough to choose by, and milliseconds at any size."""


def refresh(engine: Engine) -> None:
    """Count anew what each index holds.

    Raises
    ------
    DatabaseError
        If the database is away.
    """
    if engine.dialect.name != "sqlite":
        return
    with writing(engine) as conn:
        conn.execute(text(f"PRAGMA analysis_limit={_ROWS}"))
        conn.execute(text("ANALYZE"))
