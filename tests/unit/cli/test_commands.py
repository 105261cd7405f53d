"""Commands: exit codes, and what they hand on."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli.bank import build_arguments
from dicom_node.cli.main import app


def run(tmp_path: Path, config: str, *arguments: str) -> tuple[int, str]:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{tmp_path / "store"}"\nreserve_megabytes = 0\n'
        f'[score]\nbanks = "{tmp_path / "banks"}"\n'
        + (config or f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n'),
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, [*arguments, "--config", str(path)])
    return result.exit_code, result.output


@pytest.mark.parametrize("command", ["check", "serve", "selftest"])
def test_a_database_that_cannot_be_configured_is_a_fault_of_the_configuration(
    tmp_path: Path, command: str
) -> None:
    code, said = run(tmp_path, '[db]\nurl = "mysql://host/name"\n', command)
    assert code == 2
    assert "db.url: 'mysql' is not supported; sqlite and postgresql are" in said


def test_a_check_that_finds_something_missing_fails_and_tells_everything(tmp_path: Path) -> None:
    code, said = run(tmp_path, "", "check")
    assert code == 1
    for line in ("ok   configuration", "ok   database", "ok   store", "FAIL bank", "FAIL destinations"):
        assert line in said


def test_a_work_item_that_is_not_there_is_work_that_failed(tmp_path: Path) -> None:
    assert run(tmp_path, "", "worklist", "retry", "7") == (1, "error: there is no work item 7\n")


@pytest.mark.parametrize(
    ("given", "more"),
    [
        (["--images", "x"], ["--out", "banks"]),
        (["--images", "x", "--out", "y"], []),
        (["--images", "x", "--out=y"], []),
        (["--help"], []),
    ],
)
def test_a_bank_is_built_where_its_builder_was_told_or_else_where_banks_belong(
    given: list[str], more: list[str]
) -> None:
    assert build_arguments(given, Path("banks")) == [*given, *more]
