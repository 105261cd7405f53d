"""A worklist, two nodes on one PostgreSQL, one of them killed: every step is completed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live import build_bank
from tests.worklist_siege import work_off

pytestmark = pytest.mark.slow
STUDIES = 12


def test_two_nodes_complete_every_step_once_though_one_is_killed(tmp_path: Path, postgres_url: str) -> None:
    """``tests/bench/bench_worklist.py`` is the same with 200 studies."""
    build_bank(tmp_path / "banks", tmp_path)
    tally = work_off(tmp_path, tmp_path / "banks", postgres_url, STUDIES, 120)
    print(tally)
    assert tally.ways == {("SCHEDULED", "IN PROGRESS", "COMPLETED"): STUDIES}
    assert len(tally.reports) == STUDIES
    assert set(tally.reports.values()) == {1}
    assert tally.tasks == {"completed": STUDIES}
    assert tally.completed_at_kill < STUDIES
