"""Reads what `deploy/` and the documents tell people to run, so that tests can hold it against the program."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNITS = tuple(sorted((DEPLOY / "systemd").glob("*.service")))


def compose() -> dict[str, Any]:
    """Return compose.yaml, its anchors and merge keys resolved."""
    with (DEPLOY / "compose.yaml").open(encoding="utf-8") as file:
        return dict(yaml.load(file, _NoDuplicates))  # noqa: S506 - a SafeLoader


class _NoDuplicates(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping, which YAML forbids and PyYAML lets pass."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{twice} more than once", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile; `stage` counts from 0 (before the first FROM: -1)."""

    stage: int
    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """Return the arguments, of the exec form or of the shell form."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


def dockerfile() -> list[Instruction]:
    """Return the Dockerfile's instructions, continuations joined and comments dropped."""
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    found, stage = [], -1
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, rest.strip()))
    return found


def final_stage(name: str) -> list[Instruction]:
    """Return the instructions of one name in the stage that becomes the image."""
    last = max(i.stage for i in dockerfile())
    return [i for i in dockerfile() if i.stage == last and i.name == name]


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    pairs = [word.partition("=") for i in final_stage("ENV") for word in i.words]
    return {name: value for name, _, value in pairs}


def unit(path: Path) -> list[tuple[str, str, str]]:
    """Return a systemd unit as (section, directive, value)."""
    found, section = [], ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            directive, equals, value = line.partition("=")
            assert equals, f"{path.name}: {line!r} is no directive"
            found.append((section, directive, value))
    return found


def blocks(path: Path, *languages: str) -> list[str]:
    """Return the fenced code blocks of a Markdown file in these languages ("" is a block without one)."""
    text = path.read_text(encoding="utf-8")
    fences = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body) for _, language, body in fences if language in languages]


def inline_commands(path: Path) -> list[str]:
    """Return what stands in backquotes in running text and begins with the program's name."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`(dicom-node [^`]+)`", text)


def command_lines(path: Path) -> list[str]:
    """Return every shell line of a Markdown file, continuations joined, prompts and comments dropped."""
    found = []
    for body in blocks(path, "sh", "bash", "console", "shell", ""):
        for line in re.sub(r"\\\n\s*", "", body).splitlines():
            stripped = line.strip().removeprefix("$ ")
            if stripped and not stripped.startswith("#"):
                found.append(stripped)
    return found


def invocations(line: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (program, arguments) for each call of ours in a shell line; program: dicom-node or training."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for word in [*lexer, ";"]:
        if word and set(word) <= set(";|&<>()"):
            yield from _ours(command)
            command = []
        else:
            command.append(word)


def _ours(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Look behind what may stand before a program: assignments, sudo and runuser, docker compose."""
    rest = list(words)
    while rest and (re.match(r"\w+=", rest[0]) or rest[0] in {"sudo", "runuser", "env", "exec"}):
        rest.pop(0)
        while rest and rest[0].startswith("-"):
            if rest.pop(0) in {"-u", "-g"}:
                rest.pop(0)
    if not rest:
        return
    if Path(rest[0]).name == "dicom-node":
        yield "dicom-node", rest[1:]
    elif Path(rest[0]).name.startswith("python") and rest[1:2] == ["-m"]:
        if rest[2] in {"dicom_node", "training"}:
            yield rest[2].replace("_", "-"), rest[3:]
    elif rest[:2] == ["docker", "compose"]:
        services = compose()["services"]
        service = next((i for i, word in enumerate(rest) if word in services), 0)
        if "run" in rest[:service]:
            yield "dicom-node", rest[service + 1 :]
        elif "exec" in rest[:service]:
            yield from _ours(rest[service + 1 :])


def parse(app: typer.Typer, arguments: Sequence[str], name: str = "dicom-node") -> str:
    """Run a command line through the program's own parser and return the command it names; nothing is run.

    Raises
    ------
    Exception
        The parser's own, if it does not accept the arguments.
    """
    command: Any = typer.main.get_command(app)
    context: Any = None
    path: list[str] = []
    rest = list(arguments)
    while True:
        try:
            context = command.make_context(path[-1] if path else name, rest, parent=context)
        except typer.Exit:  # --help, --version
            return " ".join(path)
        if not hasattr(command, "resolve_command"):
            return " ".join(path)
        found, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        path.append(found)
