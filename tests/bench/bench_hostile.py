"""The attacks of tests/hostile against this node, DCMTK's storescp, Orthanc and a stock pynetdicom server.

A good peer in a process of its own does C-ECHO and C-STORE meanwhile; the table tells how it was served.
``DICOM_NODE_HOSTILE_SECONDS`` (100) is how long the drip goes on, the others take a twentieth of it;
``DICOM_NODE_HOSTILE_ASSOCIATIONS=1000`` opens as many. ``DICOM_NODE_HOSTILE_OUT`` names a file for the table,
``DICOM_NODE_HOSTILE_ONLY`` a part of the attack's name.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import peers
from tests.hostile.attacks import ATTACKS, Address
from tests.hostile.conftest import start, stop
from tests.hostile.prober import Service, probing
from tests.hostile.watch import peak_memory, soon

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc"), pytest.mark.slow]

SECONDS = float(os.environ.get("DICOM_NODE_HOSTILE_SECONDS", "100"))
WITHIN = 1.0
NOBODY = "nobody attacks"

STOCK = """
import sys
from pynetdicom import AE, AllStoragePresentationContexts, evt

def store(event):
    data_set = event.dataset
    data_set.file_meta = event.file_meta
    data_set.save_as(sys.argv[2] + "/" + data_set.SOPInstanceUID)
    return 0

entity = AE("STOCK")
entity.supported_contexts = AllStoragePresentationContexts
entity.add_supported_context("1.2.840.10008.1.1")
entity.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)])
"""


@dataclass(frozen=True)
class Server:
    """A server under attack."""

    name: str
    called: str
    port: int
    pid: int


@dataclass(frozen=True)
class Seen:
    """How the good peer was served during one attack, and what the server needed."""

    service: Service
    megabytes: float

    def __str__(self) -> str:
        quick, asked = self.service.within("echo", WITHIN)
        stored, stores = self.service.within("store", 30)
        worst = self.service.worst("echo")
        return f"{quick} / {asked}, {worst:.2f} s, {stored} / {stores}, {self.megabytes:.0f} MB"


def _nothing(address: Address, source: str, seconds: float) -> None:
    time.sleep(seconds)


def _pid_with(argument: str) -> int:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if argument in (process / "cmdline").read_text():
                found.append(int(process.name))
        except OSError:
            continue
    return min(found)


@contextmanager
def _stock(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    port = peers.free_port()
    process = subprocess.Popen([sys.executable, "-c", STOCK, str(port), str(folder)], stderr=subprocess.DEVNULL)
    try:
        assert soon(lambda: peers._listens(port))
        yield Server("stock pynetdicom", "STOCK", port, process.pid)
    finally:
        process.kill()
        process.wait()


@contextmanager
def _node(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    defaults = {"association_timeout": 10.0, "network_timeout": 60.0, "idle_timeout": 60.0}
    running = start(folder, **defaults)
    try:
        yield Server("dicom-node", "DICOMNODE", running.port, running.pid)
    finally:
        stop(running)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    folder = tmp_path_factory.mktemp("servers")
    with ExitStack() as stack:
        node = stack.enter_context(_node(folder / "node"))
        scp = stack.enter_context(peers.storescp(folder / "dcmtk", "--fork"))
        orthanc = stack.enter_context(peers.orthanc(folder / "orthanc"))
        yield [
            node,
            Server("storescp --fork", "ANY", scp.port, _pid_with(str(folder / "dcmtk" / "received"))),
            Server("Orthanc", "ORTHANC", orthanc.port, _pid_with(str(folder / "orthanc" / "orthanc.json"))),
            stack.enter_context(_stock(folder / "stock")),
        ]


def _attacked(server: Server, name: str, seconds: float, folder: Path) -> Seen:
    address: Address = ("127.0.0.1", server.port)
    attack = threading.Thread(target=ATTACKS.get(name, _nothing), args=(address, "127.0.0.66", seconds))
    prefix = f"1.2.826.0.1.{os.getpid()}.{1 + [*ATTACKS, NOBODY].index(name)}"
    with (
        peak_memory(server.pid) as peak,
        probing(server.port, server.called, prefix, folder / f"seen{server.port}") as service,
    ):
        attack.start()
        attack.join()
    return Seen(service, peak.megabytes)


def test_who_serves_a_good_peer_while_attacked(servers: list[Server], tmp_path: Path) -> None:
    failed: list[float] = []
    only = os.environ.get("DICOM_NODE_HOSTILE_ONLY", "")
    lines = ["| | " + " | ".join(server.name for server in servers) + " |", "|---" * (1 + len(servers)) + "|"]
    for name in (name for name in (*ATTACKS, NOBODY) if only in name):
        if name.startswith("drip"):  # costs no processor, and lasts: all at once
            seen = _at_once(servers, name, tmp_path)
        else:
            seen = [_attacked(server, name, SECONDS / 20, tmp_path) for server in servers]
        lines.append(f"| {name} | " + " | ".join(map(str, seen)) + " |")
        print(lines[-1], flush=True)
        failed += seen[0].service.failed["echo"]
    if out := os.environ.get("DICOM_NODE_HOSTILE_OUT"):
        Path(out).write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert not failed, "the node answered every C-ECHO"


def _at_once(servers: list[Server], name: str, folder: Path) -> list[Seen]:
    seen: dict[str, Seen] = {}

    def attack(server: Server) -> None:
        seen[server.name] = _attacked(server, name, SECONDS, folder)

    threads = [threading.Thread(target=attack, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seen[server.name] for server in servers]
