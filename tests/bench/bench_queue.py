"""What a claim and its acknowledgement cost beside a long queue: an archive's back-scoring, a PACS that was away."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, insert, text

from dicom_node.db.engine import writing
from dicom_node.db.schema import work_items
from dicom_node.db.statistics import refresh
from dicom_node.domain.states import State
from dicom_node.domain.types import Done, Kind
from dicom_node.queue.leases import acknowledge, claim

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
PATIENCE = timedelta(hours=4)
RUNS = 40


@pytest.mark.parametrize("waited", [timedelta(minutes=5), 2 * PATIENCE], ids=["fresh", "overdue"])
@pytest.mark.parametrize("waiting", [100, 50_000])
def test_claim_and_acknowledge(engine: Engine, waiting: int, waited: timedelta) -> None:
    """Print the median and the longest of a claim and its acknowledgement, in milliseconds."""
    _fill(engine, waiting, NOW - waited)
    times = []
    for number in range(RUNS):
        began = time.perf_counter()
        with writing(engine) as conn:
            lease = claim(
                conn,
                "bench",
                NOW,
                60.0,
                str(number),
                kinds=[Kind.ANALYSE],
                patience_seconds=PATIENCE.total_seconds(),
            )
        assert lease is not None
        with writing(engine) as conn:
            acknowledge(conn, lease, Done(), NOW)
        times.append(1000 * (time.perf_counter() - began))
    print(
        f"\n{engine.dialect.name}, {waiting} {'overdue' if waited > PATIENCE else 'fresh'}:"
        f" median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms"
    )


def _fill(engine: Engine, waiting: int, due: datetime) -> None:
    """As many are finished as wait; priorities are mixed, as a day's work beside an archive's back-scoring is."""
    rows = [
        {
            "kind": Kind.ANALYSE,
            "study_instance_uid": f"2.25.{state}{number}",
            "revision": 1,
            "destination": "",
            "priority": (5, 5, 5, 9, 1)[number % 5],
            "state": State.COMPLETED if state else State.SCHEDULED,
            "attempts": state,
            "available_at": due + timedelta(milliseconds=number),
            "created_at": due,
            "updated_at": due,
        }
        for state in (0, 1)
        for number in range(waiting)
    ]
    with writing(engine) as conn:
        for at in range(0, len(rows), 5000):
            conn.execute(insert(work_items), rows[at : at + 5000])
        if engine.dialect.name == "postgresql":  # autovacuum does it within a minute
            conn.execute(text("ANALYZE work_items"))
    refresh(engine)
