"""`worklist` with conditions: what is meant, what is printed, and with which exit code it ends."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.config import Db
from dicom_node.db import schema
from dicom_node.db.engine import open_engine, writing
from dicom_node.db.migrate import upgrade
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.queue import items
from tests.unit.cli.test_commands import run

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The folder of a node with one failed delivery to "pacs" and an analysis that waits, of two studies."""
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    upgrade(engine)
    with writing(engine) as conn:
        for study in ("1.2.1", "1.2.2"):
            conn.execute(
                schema.revisions.insert().values(
                    study_instance_uid=study,
                    number=1,
                    opened_at=MOMENT,
                    last_received_at=MOMENT,
                    closed_at=MOMENT,
                )
            )
        items.schedule(conn, Kind.DELIVER, "1.2.1", 1, MOMENT, destination="pacs")
        items.schedule(conn, Kind.ANALYSE, "1.2.2", 1, MOMENT)
        conn.execute(schema.work_items.update().where(schema.work_items.c.id == 1).values(state=State.FAILED))
    engine.dispose()
    return tmp_path


def asked(node: Path, *arguments: str) -> tuple[int, str]:
    return run(node, "", "worklist", *arguments)


def test_what_failed_at_a_destination_is_retried_with_counts(node: Path) -> None:
    code, said = asked(node, "retry", "--failed", "--destination", "pacs", "--dry-run")
    assert code == 0
    assert said.splitlines()[1].split() == ["deliver", "pacs", "FAILED", "scheduled", "1"]
    assert said.splitlines()[-1] == "dry run: nothing is changed"
    code, said = asked(node, "retry", "--failed", "--destination", "pacs", "--json")
    (row,) = json.loads(said)
    assert (code, row["item"], row["became"], row["as_item"]) == (0, 1, "scheduled", 1)
    assert asked(node, "retry", "--failed") == (0, "nothing\n")


def test_all_that_waits_or_failed_is_canceled(node: Path) -> None:
    code, said = asked(node, "cancel", "--all")
    assert code == 0
    assert [line.split()[-3:] for line in said.splitlines()[1:]] == [
        ["SCHEDULED", "canceled", "1"],
        ["FAILED", "canceled", "1"],
    ]
    code, said = asked(node, "cancel", "1")
    assert code == 1
    assert said.startswith("error: a CANCELED work item cannot cancel")


@pytest.mark.parametrize("command", ["retry", "cancel", "rerun"])
def test_nothing_is_meant_where_nothing_is_said(node: Path, command: str) -> None:
    code, said = asked(node, command)
    assert code == 2
    assert "are not named; --all means all" in said


def test_items_by_number_and_by_condition_are_not_mixed(node: Path) -> None:
    code, said = asked(node, "retry", "1", "--destination", "vna")
    assert code == 2
    assert "one or the other" in said


def test_of_items_that_are_named_each_is_told_and_one_that_is_refused_fails(node: Path) -> None:
    assert asked(node, "retry", "1", "7") == (1, "scheduled as item 1\nerror: there is no work item 7\n")


def test_a_rerun_without_an_active_bank_or_with_an_unknown_one_is_refused_at_once(node: Path) -> None:
    code, said = asked(node, "rerun", "1.2.1")
    assert code == 1
    assert "no bank of kind deep-knn is active" in said
    code, said = asked(node, "rerun", "1.2.1", "--bank", "x")
    assert code == 1
    assert said == "error: there is no bank x; there are: none; `dicom-node bank build` makes one\n"


def test_a_destination_that_is_not_configured_is_given_nothing(node: Path) -> None:
    code, said = asked(node, "deliver", "--destination", "new")
    assert code == 2
    assert "'new' is not configured; configured: none" in said


def test_a_moment_that_is_none_is_a_fault_of_the_command(node: Path) -> None:
    for command in (["list"], ["retry"], ["rerun"]):
        code, said = asked(node, *command, "--since", "yesterday")
        assert code == 2
        assert "--since: 'yesterday' is no moment" in said


def test_the_list_shows_what_is_meant(node: Path) -> None:
    def listed(*conditions: str) -> list[str]:
        code, said = asked(node, "list", *conditions, "--json")
        assert code == 0
        return sorted(row["study_instance_uid"] for row in json.loads(said))

    assert listed() == listed("--waiting") == ["1.2.1", "1.2.2"]
    assert listed("--failed") == listed("--destination", "pacs") == ["1.2.1"]
    assert listed("--verdict", "failed") == []


def test_a_study_is_shown_with_where_its_reports_are(node: Path) -> None:
    code, said = asked(node, "show", "1.2.1")
    assert code == 0
    for part in ("history", "instances", "work items", "destinations", "commitments", "events"):
        assert f"\n{part}\n" in said
