from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node import node
from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.db.engine import writing
from dicom_node.domain.urgency import STAT
from dicom_node.store import expected

AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(f'[store]\nroot = "{tmp_path}/store"\n[db]\nurl = "sqlite:///{tmp_path}/node.db"\n')
    return path


def test_what_is_due_is_listed_with_its_priority(settings: Path) -> None:

    with node.open_node(load(settings)) as opened, writing(opened.engine) as conn:
        expected.put(
            conn, source="mwl", key="ris:1", study_instance_uid="1.2.3", at=AT, priority=STAT, due_at=AT
        )
    told = CliRunner().invoke(app, ["worklist", "due", "--json", "--config", str(settings)])
    assert json.loads(told.stdout) == [
        {
            "worklist": "ris",
            "study_instance_uid": "1.2.3",
            "due_at": "2026-03-01T12:00:00+00:00",
            "priority": STAT,
            "procedure": "",
            "state": "due",
        }
    ]
    assert "STAT" in CliRunner().invoke(app, ["worklist", "due", "--config", str(settings)]).stdout


def test_a_study_that_is_not_held_cannot_be_made_urgent(settings: Path) -> None:
    words = ["worklist", "prioritise", "1.2.3", "--priority", "STAT", "--config", str(settings)]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 1
    assert "1.2.3 is not held here" in told.stderr
