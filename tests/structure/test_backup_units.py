"""deploy/backup: the units that make a backup every night, held against the program and its other units."""

from __future__ import annotations

import re
import shlex

from dicom_node.cli.main import app
from tests import deployment
from tests.deployment import DEPLOY, UNITS, unit

SERVICE = DEPLOY / "backup" / "dicom-node-backup.service"
TIMER = DEPLOY / "backup" / "dicom-node-backup.timer"
HARDENING = re.compile(r"(No|Protect|Private|Restrict|Lock|Remove|SystemCall|Capability|Ambient)")


def test_the_program_accepts_the_backups_command_line() -> None:
    (command,) = [value for _, directive, value in unit(SERVICE) if directive == "ExecStart"]
    shell, flag, line = shlex.split(command)
    assert (shell, flag) == ("/bin/sh", "-c")
    _, program, *arguments = shlex.split(line.replace("%%", "%").replace("$$", "$"))
    assert program == "/opt/dicom-node/bin/dicom-node"
    assert deployment.parse(app, arguments) == "backup"
    assert arguments[1].endswith(".tar")


def test_it_is_hardened_as_the_node_itself() -> None:
    def hardening(path: object) -> dict[str, str]:
        return {d: v for _, d, v in unit(path) if HARDENING.match(d)}  # type: ignore[arg-type]

    assert hardening(SERVICE) == hardening(UNITS[0]) != {}


def test_the_timer_runs_it_every_day_and_makes_up_for_a_missed_night() -> None:
    values = {directive: value for _, directive, value in unit(TIMER)}
    assert values["OnCalendar"].startswith("*-*-* ")
    assert values["Persistent"] == "true"
    assert TIMER.stem == SERVICE.stem
