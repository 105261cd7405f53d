from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.config import Config, load
from dicom_node.node.stating import conformance_statement


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield tmp_path
    root.handlers[:] = handlers
    root.setLevel(level)


def test_without_a_configuration_the_products_own_statement_is_printed() -> None:
    done = CliRunner().invoke(app, ["conformance"])
    assert (done.exit_code, done.stdout) == (0, conformance_statement(Config()))


def test_a_sites_statement_is_written_and_found_unchanged_until_the_configuration_changes(folder: Path) -> None:
    site, out = folder / "site.toml", folder / "statement.md"
    site.write_text('[receive]\nae_title = "XRAI"\n', encoding="utf-8")
    command = ["conformance", "--config", str(site), "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert "This is the statement of XRAI" in out.read_text(encoding="utf-8")
    assert CliRunner().invoke(app, [*command, "--check"]).exit_code == 0
    site.write_text('[receive]\nae_title = "OTHER"\n', encoding="utf-8")
    before = out.read_bytes()
    changed = CliRunner().invoke(app, [*command, "--check"])
    assert changed.exit_code == 1
    assert "is not what the program states" in changed.stderr
    assert out.read_bytes() == before


def test_a_site_that_takes_notices_states_their_sop_classes() -> None:
    stated = conformance_statement(load(flags={"receive": {"mpps": True, "availability": True}}))
    for name in ("Modality Performed Procedure Step SOP Class", "Instance Availability Notification SOP Class"):
        assert f"| {name} | no | yes |" in stated
        assert f"| {name} |" not in conformance_statement(Config())


@pytest.mark.parametrize(
    ("options", "told"), [(["--check"], "name it with --out"), (["--check", "--out", "absent.md"], "absent.md")]
)
def test_what_cannot_be_compared_is_told_as_a_fault_of_the_call(options: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["conformance", *options])
    assert done.exit_code == 2
    assert told in done.stderr
