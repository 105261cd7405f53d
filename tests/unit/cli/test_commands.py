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


def test_a_ready_file_that_cannot_be_written_is_told_and_ends_the_node(tmp_path: Path) -> None:
    away = tmp_path / "away" / "ready"
    code, said = run(
        tmp_path,
        f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n[receive]\nport = 0\n',
        "receive", "--ready-file", str(away),
    )  # fmt: skip
    assert code == 2
    assert f"--ready-file: {away} cannot be written: No such file or directory" in said


def test_a_check_looks_at_the_certificates_and_secrets_of_everyone_the_node_calls(tmp_path: Path) -> None:
    away = tmp_path / "away"
    where = 'host = "127.0.0.1"\nport = 1\n'
    tls = f'{{ enabled = true, ca_certificates = "{away}" }}'
    code, said = run(
        tmp_path,
        f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n[deliver]\ntimeout = 1\n'
        f'[[receive.peers]]\nae_title = "CR1"\nconnect_tls = {tls}\n{where}'
        f'[[ups_sources]]\nname = "steps"\nae_title = "RIS"\ntls = {tls}\n{where}'
        f'username = "node"\npasscode_file = "{away}"\n'
        f'[[modality_worklists]]\nname = "ris"\nae_title = "RIS"\ntls = {tls}\n{where}'
        f'[audit.syslog]\nca_certificates = "{away}"\ntimeout = 1\n{where}',
        "check",
    )
    assert code == 1
    for name in ("tls of CR1", "tls of steps", "passcode for steps", "tls of ris", "tls of audit syslog"):
        assert f"FAIL {name}: {away} cannot be read: No such file or directory" in said


def test_a_check_tells_of_a_users_file_that_serve_could_not_use(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("cr1:$argon2id$v=19$m=1,t=3,p=4$c29tZXNhbHRzb21l$aGFzaGhhc2hoYXNoaGFzaA\n")
    database = f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n'
    for command, wrong in (("check", 1), ("receive", 1)):
        code, said = run(
            tmp_path, f'{database}[receive]\nport = 0\n[receive.identity]\nusers_file = "{users}"\n', command
        )
        assert code == wrong
        assert f"{users}: the first hash has parameters that argon2 does not take" in said
