"""Runs compose.yaml without a container engine: its very commands and settings, as processes of this machine.

What a container would give (addresses, ports, paths, the secret) is replaced by one table, `substitutions`;
nothing else of the file is changed, and every row of the table must be used.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.deliver.sink import StorageSink
from tests.deployment import DEPLOY, compose, final_stage, image_environment
from tests.peers import free_port

Process = subprocess.Popen[bytes]
GRACE = re.compile(r"(\d+)s")


def substitutions(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    """Return what stands in the file -> what stands for it here."""
    return {
        "/var/lib/dicom-node": str(folder / "data"),
        "/run/secrets/db_password": str(folder / "db_password"),
        "/etc/orthanc/forward.lua": str(DEPLOY / "orthanc/forward.lua"),
        "/etc/orthanc/orthanc.json": str(folder / "orthanc.json"),
        "/var/lib/orthanc/db": str(folder / "pacs"),
        "@db/": f"@127.0.0.1:{ports['db']}/",
        '"host": "pacs"': '"host": "127.0.0.1"',
        '"Host": "node"': '"Host": "127.0.0.1"',
        "0.0.0.0": "127.0.0.1",  # noqa: S104 - replaced, not bound
        "11112": str(ports["node"]),
        "4242": str(ports["pacs"]),
        "8042": str(ports["http"]),
    }


@dataclass
class Site:
    """The services, and what a person at this site can ask them.

    `run` is how an operator's command line reaches a service: in its environment, through its entry point.
    """

    folder: Path
    ports: dict[str, int] = field(
        default_factory=lambda: {n: free_port() for n in ("node", "db", "pacs", "http")}
    )
    processes: dict[str, Process] = field(default_factory=dict)
    arrived: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    tools: str = ""

    def __post_init__(self) -> None:
        self._services: dict[str, Any] = compose()["services"]
        self._table = substitutions(self.folder, self.ports)
        self._pattern = re.compile("|".join(re.escape(text) for text in self._table))

    def here(self, text: str) -> str:
        """Return a text of the file with the container's names replaced by this machine's, in one pass."""

        def replace(found: re.Match[str]) -> str:
            self.used.add(found[0])
            return self._table[found[0]]

        return self._pattern.sub(replace, text)

    @property
    def unused(self) -> set[str]:
        """Rows of the table that nothing in the file needed."""
        return set(self._table) - self.used

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables of a service's process: the image's and its own, beside a bare minimum."""
        given = {name: value for name, value in image_environment().items() if name != "PATH"}
        given |= self._services[service].get("environment", {})
        path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:{self.tools}"
        return {"PATH": path, "HOME": str(self.folder), **{k: self.here(v) for k, v in given.items()}}

    def command(self, service: str) -> list[str]:
        """Return the command line that the container would run."""
        (entry,) = final_stage("ENTRYPOINT")
        return [*entry.words, *(self.here(word) for word in self._services[service]["command"])]

    def grace(self, service: str) -> int:
        """Return the seconds that the service has to stop."""
        found = GRACE.fullmatch(self._services[service]["stop_grace_period"])
        assert found
        return int(found[1])

    def start(self, service: str, name: str = "") -> None:
        """Start one process of a service."""
        name = name or service
        log = (self.folder / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            self.command(service),
            env=self.environment(service),
            cwd=self.folder / "data",
            stdout=log,
            stderr=log,
        )
        log.close()

    def stop(self, name: str) -> int:
        """Ask a process to stop as the engine would and return its exit code."""
        process = self.processes[name]
        process.send_signal(signal.SIGTERM)
        return process.wait(self.grace(name.partition("-")[0]))

    def log(self, name: str) -> str:
        """Return what a process wrote."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def run(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an operator's command in a service."""
        (entry,) = final_stage("ENTRYPOINT")
        return subprocess.run(
            [*entry.words, *arguments],
            env=self.environment(service),
            cwd=self.folder / "data",
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def json(self, service: str, *arguments: str) -> Any:
        """Return what a command with --json prints."""
        done = self.run(service, *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def healthy(self, service: str) -> bool:
        """Run a service's health check: its own, else the image's."""
        own = self._services[service].get("healthcheck", {}).get("test")
        if own is None:
            (check,) = final_stage("HEALTHCHECK")
            own = ["CMD", "sh", "-c", check.text.partition("CMD ")[2]]
        environment = {**self.environment(service), "PGPORT": str(self.ports["db"])}
        command = [self.here(word) for word in own[1:]]
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    def until(self, what: str, true: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until something is true, while every process lives."""
        deadline = time.monotonic() + seconds
        while not true():
            dead = {
                name: process.poll() for name, process in self.processes.items() if process.poll() is not None
            }
            if dead or time.monotonic() > deadline:
                logs = "\n".join(f"--- {n}\n{self.log(n)[-3000:]}" for n in self.processes)
                pytest.fail(f"{what}: not within {seconds:.0f} s; ended: {dead}\n{logs}")
            time.sleep(0.2)

    def reports(self) -> list[Dataset]:
        """Return every Structured Report that the PACS holds."""
        found = [dcmread(path) for path in (self.folder / "pacs").rglob("*") if _is_dicom(path)]
        return [dataset for dataset in found if dataset.Modality == "SR"]


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextmanager
def site() -> Iterator[Site]:
    """Run database and PACS, with everything prepared for node and workers; stop all of it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="dicom-node-site-"))  # short: a socket's path has at most 107 bytes
    folder.chmod(0o711)  # `postgres` passes through to its own folder
    it = Site(folder)
    (folder / "data").mkdir(mode=0o700)
    (folder / "db_password").write_text(secrets.token_hex(24) + "\n", encoding="utf-8")
    try:
        with ExitStack() as stack:
            stack.enter_context(_database(it))
            stack.enter_context(_pacs(it))
            stack.callback(_end_all, it)
            yield it
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(it: Site) -> None:
    for process in it.processes.values():
        if process.poll() is None:
            process.kill()
            process.wait()


@contextmanager
def _pacs(it: Site) -> Iterator[None]:
    """Orthanc with its own configuration and script from `deploy`; where it is absent, a sink."""
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    (it.folder / "pacs").mkdir()
    settings = it.here((DEPLOY / "orthanc/orthanc.json").read_text(encoding="utf-8"))
    (it.folder / "orthanc.json").write_text(settings, encoding="utf-8")
    if program is None:
        title = json.loads(settings)["DicomAet"]
        sink = StorageSink(it.folder / "pacs", title, port=it.ports["pacs"], respond=lambda uid: _note(it, uid))
        with sink:
            yield
        return
    command = [program, *(it.here(word) for word in compose()["services"]["pacs"]["command"])]
    with (it.folder / "pacs.log").open("wb") as log:
        it.processes["pacs"] = subprocess.Popen(command, cwd=it.folder, stdout=log, stderr=log)
    try:
        it.until("the PACS is healthy", lambda: it.healthy("pacs"), 60)
        yield
    finally:
        it.processes["pacs"].terminate()
        it.processes["pacs"].wait(30)


def _note(it: Site, sop_instance_uid: str) -> int:
    it.arrived.append(sop_instance_uid)
    return 0x0000


@contextmanager
def _database(it: Site) -> Iterator[None]:
    """A cluster made as the image makes it: user, database, password file and initdb's arguments."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not found:
        reason = "no PostgreSQL: Debian's binaries are not installed"
        if os.environ.get("DICOM_NODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    binaries, folder = found[-1].parent, it.folder / "db"
    folder.mkdir(mode=0o700)
    shutil.copyfile(it.folder / "db_password", folder / "password")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(folder / "password", "postgres", "postgres")
        as_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    settings = it.environment("db")
    environment = {"PATH": f"{binaries}:{os.environ.get('PATH', '')}", "LC_ALL": "C.UTF-8", "HOME": str(folder)}
    it.tools = str(binaries)  # as in the image, where its health check finds them

    def call(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, **as_user)
        assert done.returncode == 0, done.stderr.decode()

    data = str(folder / "data")
    user, database = settings["POSTGRES_USER"], settings["POSTGRES_DB"]
    assert Path(settings["POSTGRES_PASSWORD_FILE"]) == it.folder / "db_password"
    arguments = settings["POSTGRES_INITDB_ARGS"].split()
    call(
        "initdb",
        "-D",
        data,
        f"--username={user}",
        f"--pwfile={folder / 'password'}",
        "--encoding=UTF8",
        *arguments,
    )
    port = str(it.ports["db"])
    command = ["postgres", "-D", data, "-p", port, "-c", f"unix_socket_directories={folder}"]
    log_path = it.folder / "db.log"
    with log_path.open("wb") as log:
        it.processes["db"] = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, **as_user
        )
    try:
        it.until("the database takes connections", lambda: it.healthy("db"), 60)
        call(
            "psql",
            "-q",
            "-h",
            str(folder),
            "-p",
            port,
            "-U",
            user,
            "-d",
            "postgres",
            "-c",
            f"CREATE DATABASE {database}",
        )
        yield
    finally:
        it.processes["db"].send_signal(signal.SIGINT)
        it.processes["db"].wait(30)
