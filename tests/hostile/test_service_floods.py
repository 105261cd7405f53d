"""While a known peer floods the services of procedure steps and notices, good peers are served; nothing is left.

Bounds and variables are those of `test_floods`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path
from statistics import median

import pytest

from tests.hostile import services, wire
from tests.hostile.conftest import Receiver
from tests.hostile.prober import probing
from tests.hostile.service_attacks import SERVICE_ATTACKS
from tests.hostile.test_floods import ATTACKER, MOST_MEGABYTES, SECONDS, patience
from tests.hostile.watch import peak_memory


@pytest.mark.parametrize("name", SERVICE_ATTACKS)
def test_good_peers_are_served_during(name: str, offering: Receiver, tmp_path: Path) -> None:
    prefix = f"1.2.3.{list(SERVICE_ATTACKS).index(name) + 1}.3"
    attack = threading.Thread(target=SERVICE_ATTACKS[name], args=(offering.address, ATTACKER, SECONDS))
    with (
        peak_memory(offering.pid) as peak,
        probing(offering.port, "DICOMNODE", prefix, tmp_path / "seen") as service,
    ):
        attack.start()
        attack.join()
        begun = time.monotonic()
        while not service.answered["store"] and time.monotonic() - begun < 30:
            time.sleep(0.05)
    assert service.failed == {"echo": [], "store": []}
    assert median(service.answered["echo"]) < patience()
    assert service.answered["store"]
    assert peak.megabytes < MOST_MEGABYTES
    assert offering.settles(), f"{offering.holds()} is left of {offering.at_rest}, files {offering.files()}"


def test_who_subscribes_again_and_again_is_owed_a_state_once(offering: Receiver) -> None:
    with wire.Wire(offering.address) as peer:
        peer.associate(services.request())
        peer.send(services.create("2.25.60"))
        assert peer.status() == 0
        for uid in ("2.25.60", services.GLOBAL) * 5:
            peer.send(services.act(3, uid, services.subscription()))
            assert peer.status() == 0
    with sqlite3.connect(offering.folder / "node.db") as database:
        owed = "SELECT count(*) FROM step_events WHERE sop_instance_uid = '2.25.60'"
        assert database.execute(owed).fetchone() == (1,)
