"""A receiving node as a process of its own, with deadlines of seconds, and what it may hold at rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from tests.hostile import services, wire
from tests.hostile.watch import sockets, soon, threads
from tests.peers import free_port

TIMEOUTS = {"association_timeout": 2.0, "network_timeout": 2.0, "idle_timeout": 60.0}


@dataclass
class Receiver:
    """A running `dicom-node receive`."""

    port: int
    process: subprocess.Popen[bytes]
    folder: Path
    at_rest: tuple[int, int] = (0, 0)

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        return self.process.pid

    def holds(self) -> tuple[int, int]:
        """Return threads and sockets."""
        return threads(self.pid), sockets(self.pid)

    def files(self) -> list[Path]:
        """Return what lies in the folder of data sets that are arriving."""
        return list((self.folder / "store" / "incoming").iterdir())

    def settles(self) -> bool:
        """Return whether it comes back to what it held at rest."""
        return soon(lambda: self.holds() <= self.at_rest and not self.files())

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines with this message."""
        told = (json.loads(line) for line in (self.folder / "log").read_text().splitlines())
        return [line for line in told if line["message"] == message]


def start(
    folder: Path,
    *,
    sources: tuple[dict[str, object], ...] = (),
    web: dict[str, object] | None = None,
    **settings: object,
) -> Receiver:
    """Start a node that only receives.

    Parameters
    ----------
    sources
        The providers of procedure steps that it watches.
    web
        Settings of the pages that it serves beside; None for none.
    settings
        Of the receive section.
    """
    port = free_port()
    sections = {
        "receive": {"port": port, **TIMEOUTS, **settings},
        "store": {"root": str(folder / "store"), "reserve_megabytes": 0},
        "db": {"url": f"sqlite:///{folder / 'node.db'}"},
        "log": {"format": "json"},
        "ups_sources": sources,
        "web": web or {},
    }
    (folder / "config.toml").write_text(tomli_w.dumps(sections))
    ready = folder / "ready"
    command = [sys.executable, "-m", "dicom_node", "receive", "--config", str(folder / "config.toml")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=log)
    soon(lambda: ready.exists() or process.poll() is not None, 180)
    if not ready.exists():
        process.kill()
        pytest.fail(f"the node did not start: {(folder / 'log').read_text()[-2000:]}")
    receiver = Receiver(port, process, folder)
    for number in range(3):  # what is made once and kept, such as database connections
        wire.store_once(receiver.address, f"1.2.3.99.{number}")
    soon(lambda: receiver.holds()[1] <= 1, 5)
    receiver.at_rest = receiver.holds()
    return receiver


def offer(folder: Path, **settings: object) -> Receiver:
    """Start a node that offers every service to three peers that it knows, and watches a provider that is away."""
    peers = [{"ae_title": title, "port": free_port()} for title in (services.CALLING, "HOSTILE", "GOOD")]
    source = {"name": "away", "ae_title": "AWAY", "host": "127.0.0.1", "port": free_port()}
    return start(
        folder,
        sources=({**source, "mode": "subscribe", "poll_seconds": 60.0},),
        **{"procedure_steps": True, "mpps": True, "availability": True, "peers": peers, **settings},
    )


def stop(receiver: Receiver) -> None:
    """Stop it as a service manager does."""
    receiver.process.terminate()
    assert receiver.process.wait(60) == 0


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One node for all tests of a module: what one leaves behind the next would find."""
    running = start(tmp_path_factory.mktemp("node"))
    yield running
    stop(running)


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    """One node with every service for all tests of a module."""
    running = offer(tmp_path_factory.mktemp("offering"))
    yield running
    stop(running)


@pytest.fixture
def receiving(tmp_path: Path) -> Iterator[Callable[..., Receiver]]:
    """Start a node with these settings of the receive section."""
    started: list[Receiver] = []

    def begin(**settings: object) -> Receiver:
        started.append(start(tmp_path, **settings))
        return started[-1]

    yield begin
    for each in started:
        stop(each)
