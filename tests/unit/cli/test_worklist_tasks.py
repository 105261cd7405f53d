"""What ``worklist tasks`` prints: what has not ended stands first, and says when it is looked at again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node import node
from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.db.engine import writing
from dicom_node.domain.performing import TaskState
from dicom_node.domain.urgency import STAT
from dicom_node.store import tasks

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Return the configuration of a node with three tasks: one waits to try again, one is lost, one is canceled."""
    path = tmp_path / "config.toml"
    path.write_text(f'[store]\nroot = "{tmp_path}/store"\n[db]\nurl = "sqlite:///{tmp_path}/node.db"\n')
    with node.open_node(load(path)) as opened, writing(opened.engine) as conn:
        for number in (1, 2, 3):
            tasks.add(
                conn,
                source="ris",
                sop_instance_uid=f"2.25.{number}",
                transaction_uid=f"2.25.9{number}",
                priority=STAT,
                at=AT + timedelta(seconds=number),
            )
        begun = {1: _claimed(conn), 2: _claimed(conn), 3: _claimed(conn)}
        tasks.move(conn, begun[2], TaskState.LOST, AT, reason="the provider says: there is no such item")
        later = AT + timedelta(minutes=5)
        tasks.move(
            conn,
            begun[1],
            TaskState.FETCHING,
            AT,
            later,
            study_instance_uid="1.2.3",
            reason="ris did not bring 1 of 2 images",
        )
        for state, more in (
            (TaskState.FETCHING, {}),
            (TaskState.CANCELING, {"discontinued": "110523"}),
            (TaskState.CANCELED, {}),
        ):
            tasks.move(conn, begun[3], state, AT, reason="its input is nowhere", **more)
            begun[3] = _claimed(conn) if state is not TaskState.CANCELED else begun[3]
    return path


def _claimed(conn: object) -> tasks.Task:
    task = tasks.claim(conn, "ris", AT + timedelta(minutes=1), 60.0, "token")  # type: ignore[arg-type]
    assert task is not None
    return task


def _run(*words: str) -> str:
    told = CliRunner().invoke(app, ["worklist", *words])
    assert told.exit_code == 0, told.stderr
    return told.stdout


def test_tasks_are_values_for_programs(settings: Path) -> None:
    rows = json.loads(_run("tasks", "--json", "--config", str(settings)))
    assert [(row["sop_instance_uid"], row["state"]) for row in rows] == [
        ("2.25.1", "fetching"),
        ("2.25.3", "canceled"),
        ("2.25.2", "lost"),
    ]
    assert rows[0] == {
        "source": "ris",
        "sop_instance_uid": "2.25.1",
        "state": "fetching",
        "study_instance_uid": "1.2.3",
        "revision": None,
        "priority": "STAT",
        "attempts": 0,
        "discontinued": "",
        "reason": "ris did not bring 1 of 2 images",
        "due_at": "2026-03-01T12:05:00+00:00",
        "created_at": "2026-03-01T12:00:01+00:00",
        "updated_at": "2026-03-01T12:00:00+00:00",
    }
    assert (rows[1]["discontinued"], rows[1]["due_at"]) == ("110523", None)


def test_tasks_are_a_table_for_people_cut_to_a_limit_and_read_in_the_audit_trail(settings: Path) -> None:
    head, first, *others = _run("tasks", "--limit", "2", "--config", str(settings)).splitlines()
    assert head.split()[:3] == ["source", "sop_instance_uid", "state"]
    assert first.split()[:6] == ["ris", "2.25.1", "fetching", "1.2.3", "STAT", "0"]
    assert "did not bring 1 of 2 images" in first
    assert len(others) == 1
    trail = CliRunner().invoke(app, ["audit", "--config", str(settings)]).stdout
    assert "Query  ok" in trail


def test_without_any_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'[store]\nroot = "{tmp_path}/store"\n[db]\nurl = "sqlite:///{tmp_path}/node.db"\n')
    assert _run("tasks", "--config", str(path)) == "nothing\n"


def test_a_person_gives_up_a_step_that_is_under_way_and_no_other(settings: Path) -> None:
    words = ["worklist", "discontinue", "--config", str(settings)]
    assert _run(*words[1:], "2.25.1") == "step 2.25.1: to be canceled, unless its analysis is begun\n"
    with node.open_node(load(settings)) as opened, writing(opened.engine) as conn:
        asked = tasks.claim(conn, "ris", node.now(), 60.0, "token")  # it is due, whatever it waited for
    assert asked is not None
    assert (asked.sop_instance_uid, asked.cancel_requested) == ("2.25.1", True)
    for unknown in ("2.25.3", "2.25.99"):
        told = CliRunner().invoke(app, [*words, unknown])
        assert told.exit_code == 1
        assert (
            f"no procedure step {unknown} is under way here; `worklist tasks` lists those that are"
            in told.stderr
        )
    trail = CliRunner().invoke(app, ["audit", "--config", str(settings)]).stdout
    assert trail.count("worklist discontinue") == 3
