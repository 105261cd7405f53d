"""Every command that a document or a script tells people to type is one that the program's parser accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_node.cli.bank import BUILDERS
from dicom_node.cli.main import app
from tests import deployment
from tests.deployment import DEPLOY, ROOT, blocks, command_lines, inline_commands, invocations

DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", DEPLOY / "RUNBOOK.md", DEPLOY / "CONFORMANCE.md")
each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def _parse(program: str, arguments: list[str]) -> str:
    if program == "training":
        from training.cli import app as training

        return deployment.parse(training, arguments, "training")
    command = deployment.parse(app, arguments)
    if command == "bank build":
        passed_on, rest, method = [], iter(arguments[2:]), "deep-knn"
        for word in rest:
            if word == "--config":
                next(rest)
            elif word == "--method":
                method = next(rest)
            else:
                passed_on.append(word)
        return _parse(
            "training", [BUILDERS[method], *passed_on, *([] if "--out" in passed_on else ["--out", "banks"])]
        )
    return command


COMMANDS = [
    pytest.param(program, arguments, id=f"{path.name}: {line}")
    for path in DOCUMENTS
    if path.is_file()
    for line in (
        *command_lines(path),
        *(inline_commands(path) if path.name == "RUNBOOK.md" else ()),
    )
    for program, arguments in invocations(line)
]


@pytest.mark.parametrize(("program", "arguments"), COMMANDS)
def test_every_command_that_a_document_shows_is_accepted(program: str, arguments: list[str]) -> None:
    _parse(program, arguments)


def test_the_runbook_shows_every_command_that_an_operator_has() -> None:
    lines = [*command_lines(DEPLOY / "RUNBOOK.md"), *inline_commands(DEPLOY / "RUNBOOK.md")]
    shown = {
        deployment.parse(app, a) for line in lines for program, a in invocations(line) if program != "training"
    }
    assert shown >= {
        *("serve", "receive", "work", "web", "check", "conformance", "selftest", "score"),
        *("prune", "backup", "restore"),
        *(f"bank {name}" for name in ("build", "rebuild", "list", "show", "verify", "activate")),
        *(f"bank {name}" for name in ("rollback", "compare", "gc")),
        *(f"worklist {name}" for name in ("list", "show", "retry", "cancel", "rerun", "deliver", "mark")),
        *(f"user {name}" for name in ("add", "list", "remove", "role", "link", "token", "revoke")),
    }


@each_document
def test_every_make_target_it_names_exists(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {m for line in command_lines(path) for m in re.findall(r"^make (\w+)", line)}
    named |= set(re.findall(r"`make (\w+)", path.read_text("utf-8")))
    assert named <= targets


def test_the_comments_of_the_compose_file_hold_commands_that_are_accepted() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    assert re.findall(r"^#   docker compose -f (\S+) up", text, re.MULTILINE) == ["deploy/compose.yaml"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("dicom-node check --json | head", [("dicom-node", ["check", "--json"])]),
        ("sudo -u dicom-node /opt/x/dicom-node serve && echo up", [("dicom-node", ["serve"])]),
        ("docker compose -f deploy/compose.yaml run --rm node bank list", [("dicom-node", ["bank", "list"])]),
        ("docker compose exec node dicom-node worklist list", [("dicom-node", ["worklist", "list"])]),
        ("python -m training build --images x", [("training", ["build", "--images", "x"])]),
        ("docker build -t dicom-node .", []),
        ("systemctl stop dicom-node", []),
    ],
)
def test_commands_are_found_in_a_line(line: str, found: list[tuple[str, list[str]]]) -> None:
    assert list(invocations(line)) == found


def test_no_code_block_is_left_open() -> None:
    for path in DOCUMENTS:
        assert len(re.findall(r"^ *```", path.read_text("utf-8"), re.MULTILINE)) % 2 == 0
        assert all(blocks(path, "sh", "bash", "console", "toml", "json", "text", "", "mermaid", "lua", "ini"))
