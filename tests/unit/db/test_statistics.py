"""The statistics that SQLite chooses an index by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert

from dicom_node.db.engine import reading, writing
from dicom_node.db.schema import work_items
from dicom_node.db.statistics import refresh
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.queue.leases import claim

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def _plan(engine: Engine) -> str:
    """Return what a claim among many waiting items reads, as the database plans it."""
    seen = []

    @event.listens_for(engine, "before_cursor_execute")
    def _keep(_conn: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("UPDATE work_items"):
            seen.append((statement, parameters))

    with writing(engine) as conn:
        assert claim(conn, "test", NOW, 60.0, "token", kinds=[Kind.ANALYSE], patience_seconds=3600.0)
    event.remove(engine, "before_cursor_execute", _keep)
    explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
    with reading(engine) as conn:
        rows = conn.exec_driver_sql(f"{explain} {seen[0][0]}", seen[0][1]).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.fixture
def long_queue(engine: Engine) -> Engine:
    """Two thousand items wait, and as many are done."""
    rows = [
        {
            "kind": Kind.ANALYSE,
            "study_instance_uid": f"2.25.{number}",
            "revision": 1,
            "destination": "",
            "priority": 1 + number % 5,
            "state": State.COMPLETED if number % 2 else State.SCHEDULED,
            "attempts": 0,
            "available_at": NOW - timedelta(milliseconds=number),
            "created_at": NOW,
            "updated_at": NOW,
        }
        for number in range(4000)
    ]
    with writing(engine) as conn:
        conn.execute(insert(work_items), rows)
        if engine.dialect.name == "postgresql":
            conn.exec_driver_sql("ANALYZE work_items")
    return engine


def test_a_claim_reads_the_queue_in_order_and_sorts_nothing(long_queue: Engine) -> None:
    refresh(long_queue)
    plan = _plan(long_queue)
    assert "ix_work_items_by_turn" in plan
    assert "ix_work_items_by_wait" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort Key" not in plan
