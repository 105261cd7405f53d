"""While a port is scanned and flooded, good peers are served; afterwards nothing is left.

CI runs each attack for seconds with deadlines of seconds; DICOM_NODE_HOSTILE_SECONDS=100 goes on as long as it says,
DICOM_NODE_HOSTILE_ASSOCIATIONS=1000 opens as many.
A C-ECHO takes less than a second; where processes wait for a core, as many seconds as there are for each.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from statistics import median

import pytest

from tests.hostile import wire
from tests.hostile.attacks import ATTACKS, WITHOUT_ASSOCIATION
from tests.hostile.conftest import Receiver
from tests.hostile.prober import probing
from tests.hostile.watch import peak_memory

SECONDS = float(os.environ.get("DICOM_NODE_HOSTILE_SECONDS", "2"))
ATTACKER = "127.0.0.66"
MOST_MEGABYTES = 300


def patience() -> float:
    """Return what counts as soon, in seconds."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.mark.parametrize(
    ("name", "source"),
    [(name, ATTACKER) for name in ATTACKS] + [(name, "127.0.0.1") for name in WITHOUT_ASSOCIATION],
)
def test_good_peers_are_served_during(name: str, source: str, receiver: Receiver, tmp_path: Path) -> None:
    prefix = f"1.2.3.{list(ATTACKS).index(name) + 1}.{1 + (source == ATTACKER)}"
    attack = threading.Thread(target=ATTACKS[name], args=(receiver.address, source, SECONDS))
    with (
        peak_memory(receiver.pid) as peak,
        probing(receiver.port, "DICOMNODE", prefix, tmp_path / "seen") as service,
    ):
        attack.start()
        attack.join()
        begun = time.monotonic()  # on a busy machine not even one may have ended by now
        while not service.answered["store"] and time.monotonic() - begun < 30:
            time.sleep(0.05)
    assert service.failed == {"echo": [], "store": []}
    assert median(service.answered["echo"]) < patience()
    assert service.answered["store"]
    assert peak.megabytes < MOST_MEGABYTES
    assert receiver.settles(), f"{receiver.holds()} is left of {receiver.at_rest}, files {receiver.files()}"


def test_the_log_tells_of_a_scan_without_being_filled_by_it(receiver: Receiver) -> None:
    for _ in range(300):
        with wire.Wire(receiver.address, "127.0.0.77") as peer:
            peer.send(b"GET / HTTP/1.0\r\n\r\n")
            assert peer.end() == wire.ABORT
    told = [line for line in receiver.lines("connection refused") if line["peer_address"] == "127.0.0.77"]
    assert 1 <= len(told) <= 20
    assert "0x47" in told[0]["reason"]


def test_a_node_that_is_attacked_can_be_stopped(receiving) -> None:
    node = receiving()
    with wire.Wire(node.address) as silent, wire.Wire(node.address) as idle, wire.Wire(node.address) as storing:
        silent.send(wire.request()[:50])
        assert idle.associate()[0] == 2
        assert storing.associate()[0] == 2
        storing.send(wire.store_command() + wire.p_data(wire.fragment(wire.CR_CONTEXT, 0, bytes(1000))))
        node.process.terminate()
        assert node.process.wait(60) == 0
    assert node.files() == []
