"""deploy/systemd: the units as systemd itself reads them, and their commands as the program does."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dicom_node.cli.main import app
from dicom_node.cli.options import MISCONFIGURED
from dicom_node.config import load
from tests import deployment
from tests.deployment import UNITS, unit

INSTALLED = "/opt/dicom-node/bin/dicom-node"
SERVICE = """
    AmbientCapabilities CapabilityBoundingSet EnvironmentFile ExecStart Group LockPersonality
    NoNewPrivileges PrivateDevices PrivateTmp ProtectClock ProtectControlGroups ProtectHome
    ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables ProtectProc
    ProtectSystem RemoveIPC Restart RestartPreventExitStatus RestartSec RestrictAddressFamilies
    RestrictNamespaces RestrictRealtime RestrictSUIDSGID StateDirectory StateDirectoryMode
    SystemCallArchitectures SystemCallErrorNumber SystemCallFilter TimeoutStopSec Type UMask User
    WorkingDirectory
"""
KNOWN = {
    "Unit": {"After", "Conflicts", "Description", "StartLimitIntervalSec", "Wants"},
    "Install": {"WantedBy"},
    "Service": set(SERVICE.split()),
}
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "CapabilityBoundingSet": "",
    "UMask": "0077",
    "Restart": "on-failure",
    "StateDirectory": "dicom-node",
    "StateDirectoryMode": "0700",
    "SystemCallFilter": "@system-service",
    "User": "dicom-node",
}
COMMANDS = {
    "dicom-node.service": "serve",
    "dicom-node-receive.service": "receive",
    "dicom-node-work@.service": "work",
}
each_unit = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)


def _service(path: Path) -> dict[str, str]:
    return {directive: value for section, directive, value in unit(path) if section == "Service"}


def test_there_is_a_unit_for_each_way_to_run() -> None:
    assert {path.name for path in UNITS} == set(COMMANDS)


@each_unit
def test_every_directive_is_known_and_stands_once(path: Path) -> None:
    found = [(section, directive) for section, directive, _ in unit(path)]
    assert [(s, d) for s, d in found if d not in KNOWN[s]] == []
    assert len(found) == len(set(found))


@each_unit
def test_the_program_accepts_the_command_line(path: Path) -> None:
    program, *arguments = shlex.split(_service(path)["ExecStart"])
    assert program == INSTALLED
    assert deployment.parse(app, arguments) == COMMANDS[path.name]
    assert arguments[-2:] == ["--config", "/etc/dicom-node/config.toml"]


@each_unit
def test_it_is_hardened(path: Path) -> None:
    service = _service(path)
    assert {key: service.get(key) for key in HARDENING} == HARDENING


@each_unit
def test_a_fault_in_the_configuration_is_not_tried_again_and_again(path: Path) -> None:
    assert _service(path)["RestartPreventExitStatus"] == str(MISCONFIGURED)


@each_unit
def test_stopping_leaves_time_to_finish_what_was_begun(path: Path) -> None:
    assert int(_service(path)["TimeoutStopSec"]) > load().deliver.timeout


@each_unit
def test_the_units_differ_only_where_they_must(path: Path) -> None:
    free = {"ExecStart", "TimeoutStopSec"}
    first = {key: value for key, value in _service(UNITS[0]).items() if key not in free}
    assert {key: value for key, value in _service(path).items() if key not in free} == first


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for path in UNITS:
        text = path.read_text("utf-8").replace(INSTALLED, sys.executable)
        (tmp_path / path.name).write_text(re.sub(r"^(Wants|After)=.*\n", "", text, flags=re.MULTILINE), "utf-8")
    units = [str(tmp_path / path.name) for path in UNITS]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
