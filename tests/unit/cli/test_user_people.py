"""``user`` for people of the reading worklist: roles, links, tokens, and what the audit trail has of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli.main import app

PASSCODE = "marked-passcode"


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{tmp_path / "store"}"\nreserve_megabytes = 0\n'
        f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n[web]\nport = 8443\nhost_names = ["node.example"]\n'
        f'[receive.identity]\nusers_file = "{tmp_path / "users"}"\n',
        encoding="utf-8",
    )

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        result = CliRunner().invoke(app, ["user", *arguments, "--config", str(path)], input=typed)
        return result.exit_code, result.output

    return run


def audited(tmp_path: Path) -> list[tuple[str, str]]:
    lines = (tmp_path / "store" / "audit" / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    told = " ".join(json.dumps(json.loads(line)) for line in lines)
    assert PASSCODE not in told
    return re.findall(r"user (add|role|link|token|revoke|remove)", told)


def test_people_are_added_changed_listed_and_removed(run, tmp_path):
    assert run("add", "ann", "--role", "viewer", typed=f"{PASSCODE}\n") == (
        0,
        "'ann' may look now, as viewer\n",
    )
    assert run("role", "ann", "operator") == (0, "'ann' is operator now\n")
    assert run("add", "reader", "--role", "viewer", "--no-passcode")[0] == 0
    assert run("token", "reader")[0] == 0
    assert run("list") == (
        0,
        "ann\toperator\tpasscode\t0 sessions\t0 tokens\nreader\tviewer\tno passcode\t0 sessions\t1 tokens\n",
    )
    assert run("revoke", "reader") == (0, "1 tokens taken back\n")
    assert run("remove", "ann") == (0, "'ann' may not look any more\n")
    assert audited(tmp_path) == ["add", "role", "add", "token", "revoke", "remove"]


def test_a_link_leads_to_the_address_that_people_use_and_is_not_kept_anywhere(run, tmp_path):
    run("add", "ann", "--role", "admin", "--no-passcode")
    code, said = run("link", "ann")
    assert code == 0
    found = re.fullmatch(r"http://node\.example:8443/login/link\?token=([\w-]{43})\n", said)
    assert found is not None
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [True for content in written if found[1].encode() in content]


def test_what_cannot_be_done_is_told_with_what_would_be_right(run):
    code, said = run("add", "ann", "--role", "viewer", typed="short\n")
    assert (code, "the passcode has 5 characters; 10 to 1024 are right" in said) == (1, True)
    assert run("add", "ann", "--role", "king")[0] == 2
    for command in (("role", "ann", "viewer"), ("link", "ann"), ("token", "ann"), ("revoke", "ann")):
        code, said = run(*command)
        assert (code, "there is nobody named 'ann'; see `dicom-node user list`" in said) == (1, True)


def test_a_name_that_may_look_and_may_associate_is_not_removed_by_guessing(run):
    run("add", "ann", "--role", "viewer", typed=f"{PASSCODE}\n")
    run("add", "ann", typed=f"{PASSCODE}\n")
    code, said = run("remove", "ann")
    assert (code, "say web or dicom" in said) == (2, True)
    run("remove", "ann", "--of", "dicom")
    assert run("list") == (0, "ann\tviewer\tpasscode\t0 sessions\t0 tokens\n")
