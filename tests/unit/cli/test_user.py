"""``user`` and what ``check`` says of certificates and secrets."""

from __future__ import annotations

import logging
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.pipeline.security import watch
from dicom_node.security.passcodes import read_users
from tests.authority import LONG_AGO, Authority
from tests.peers import free_port

PASSCODE = "marked-passcode"


def run(tmp_path: Path, config: str, *arguments: str, typed: str = "") -> tuple[int, str]:
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{tmp_path / "store"}"\nreserve_megabytes = 0\n'
        f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n' + config,
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, [*arguments, "--config", str(path)], input=typed)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    return tmp_path / "users"


@pytest.fixture
def identity(users: Path) -> str:
    return f'[receive.identity]\nusers_file = "{users}"\n'


def test_users_are_added_changed_listed_and_removed(tmp_path, users, identity):
    assert run(tmp_path, identity, "user", "add", "cr1", typed=f"{PASSCODE}\n") == (
        0,
        f"user 'cr1' added in {users}\n",
    )
    first = read_users(users)["cr1"]
    assert first.startswith("$argon2id$")
    assert stat.S_IMODE(users.stat().st_mode) == 0o600
    assert "changed" in run(tmp_path, identity, "user", "add", "cr1", typed="other\n")[1]
    assert read_users(users)["cr1"] != first
    run(tmp_path, identity, "user", "add", "anyone", "--no-passcode")
    assert run(tmp_path, identity, "user", "list") == (
        0,
        "cr1\tassociates\tpasscode\nanyone\tassociates\tno passcode\n",
    )
    assert run(tmp_path, identity, "user", "remove", "cr1")[0] == 0
    assert list(read_users(users)) == ["anyone"]
    assert run(tmp_path, identity, "user", "remove", "cr1") == (
        1,
        "error: there is no user 'cr1'; see `dicom-node user list`\n",
    )


def test_a_user_needs_a_passcode_and_a_file(tmp_path, users, identity):
    code, said = run(tmp_path, identity, "user", "add", "cr1", typed="\n")
    assert (code, "the passcode is empty" in said, users.exists()) == (1, True, False)
    code, said = run(tmp_path, "", "user", "add", "cr1", typed=f"{PASSCODE}\n")
    assert (code, "receive.identity.users_file: is not set" in said) == (2, True)


def test_check_tells_of_every_certificate_and_secret_and_quotes_none(tmp_path, users, identity):
    authority = Authority(tmp_path / "ca")
    node = authority.files(
        "node.example", ends=datetime.now(UTC) + timedelta(days=10, minutes=1), passphrase=b"key-passphrase"
    )
    old = authority.files("old.example", ends=LONG_AGO)
    old.private_key.chmod(0o644)
    passcode = tmp_path / "pacs_passcode"
    passcode.touch(0o600)
    passcode.write_text(f"{PASSCODE}\n")
    run(tmp_path, identity, "user", "add", "cr1", typed=f"{PASSCODE}\n")
    port = free_port()
    destination = f'ae_title = "PACS"\nhost = "127.0.0.1"\nport = {port}\nusername = "node"\n'
    config = (
        f'[deliver]\ntimeout = 2\n{identity}[receive.tls]\nenabled = true\ncertificate = "{node.certificate}"\n'
        f'private_key = "{node.private_key}"\npassphrase_file = "{node.passphrase_file}"\n'
        f'ca_certificates = "{node.ca_certificates}"\n'
        f'[[destinations]]\nname = "clear"\n{destination}passcode_file = "{passcode}"\n'
        f'[[destinations]]\nname = "pacs"\n{destination}[destinations.tls]\nenabled = true\n'
        f'certificate = "{old.certificate}"\nprivate_key = "{old.private_key}"\n'
        f'ca_certificates = "{authority.certificate}"\n'
    )
    code, said = run(tmp_path, config, "check")
    assert code == 1
    for line in (
        r"ok   receive.tls: warning: .*CN=node.example.* ends on .*, in 10 days; renew it",
        r"FAIL tls of pacs: .*CN=old.example.* ended on 2001-01-01; renew it",
        r"ok   tls of pacs: warning: .*old.example.key may be read by every user",
        r"ok   users: .*/users holds 1 users",
        r"ok   passcode for clear: warning: it crosses the network in the clear; set tls.enabled",
    ):
        assert _matches(line, said), (line, said)
    for secret in (PASSCODE, "key-passphrase", "argon2", "PRIVATE KEY"):
        assert secret not in said


def _matches(pattern: str, text: str) -> bool:
    return re.search(f"^{pattern}", text, re.MULTILINE) is not None


def test_the_running_node_tells_its_log_once_a_day(tmp_path, caplog):
    authority = Authority(tmp_path / "ca")
    node = authority.files("node.example")
    tls = {"enabled": True, "certificate": str(node.certificate), "private_key": str(node.private_key)}
    config = load(flags={"receive": {"tls": {**tls, "client_certificates": "none"}}})
    now = datetime.now(UTC)
    watch(config, lambda: now)
    assert caplog.records == []
    watch(config, lambda: now + timedelta(days=340))
    watch(config, lambda: now + timedelta(days=366))
    assert [(record.levelname, record.what) for record in caplog.records] == [
        ("WARNING", "receive.tls"),
        ("ERROR", "receive.tls"),
    ]


def test_no_form_of_the_configuration_shows_a_secret(tmp_path):
    passcode = tmp_path / "passcode"
    passcode.write_text(PASSCODE)
    pacs = {"name": "pacs", "ae_title": "P", "host": "h", "port": 104, "username": "node"}
    config = load(flags={"destinations": [{**pacs, "passcode_file": str(passcode)}]})
    assert PASSCODE not in repr(config) + config.model_dump_json()
