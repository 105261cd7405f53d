"""Throughput of the C-STORE SCP beside DCMTK's storescp: 40 CR of 10 MB, at one and four associations.

The SCP syncs every file and its folder before Success; storescp syncs nothing. Run with ``make bench``.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicom_node.config import Receive
from dicom_node.domain.types import Ingested, Received
from dicom_node.receive.scp import Scp
from tests import peers

pytestmark = pytest.mark.peer("dcmtk")

IMAGES = 40
ASSOCIATIONS = (1, 4)
PDU = "131072"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number:02}.dcm" for number in range(IMAGES)]
    for path in paths:
        peers.write_image(path, size=(2560, 2000))
    return paths


@contextmanager
def _node(folder: Path) -> Iterator[int]:
    incoming, kept = folder / "incoming", folder / "kept"
    incoming.mkdir(parents=True)
    kept.mkdir()

    def ingest(received: Received) -> Ingested:
        with received.path.open("rb") as file:
            os.fsync(file.fileno())
        received.path.rename(kept / received.path.name)
        entry = os.open(kept, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)
        return Ingested.NEW

    scp = Scp(
        Receive(port=0, maximum_pdu_size=int(PDU)),
        incoming=incoming,
        ingest=ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=lambda: datetime.now(UTC),
    )
    _, port = scp.start()
    yield port
    scp.stop()
    assert len(list(kept.iterdir())) == IMAGES


@contextmanager
def _storescp(folder: Path) -> Iterator[int]:
    with peers.storescp(folder, "--fork", "--max-pdu", PDU) as peer:
        yield peer.port
        assert len(peer.files) == IMAGES


def _send(port: int, images: list[Path], associations: int) -> float:
    """Send all images, split among associations; return MB/s."""
    program = peers.require("storescu")
    options = ["--max-pdu", PDU, "--max-send-pdu", PDU, "127.0.0.1", str(port)]
    start = time.perf_counter()
    senders = [
        subprocess.Popen([program, *options, *map(str, images[first::associations])])
        for first in range(associations)
    ]
    assert [sender.wait(300) for sender in senders] == [0] * associations
    return sum(path.stat().st_size for path in images) / 1e6 / (time.perf_counter() - start)


@pytest.mark.slow
def test_receiving_beside_storescp(images: list[Path], tmp_path: Path) -> None:
    os.sync()
    print(f"\n{IMAGES} CR of {images[0].stat().st_size / 1e6:.2f} MB, storescu --max-pdu {PDU}, MB/s")
    print(f"{'associations':>12}  {'node (fsync)':>12}  {'storescp':>12}")
    for associations in ASSOCIATIONS:
        with _node(tmp_path / f"node{associations}") as port:
            node = _send(port, images, associations)
        os.sync()
        with _storescp(tmp_path / f"storescp{associations}") as port:
            reference = _send(port, images, associations)
        os.sync()
        print(f"{associations:>12}  {node:>12.0f}  {reference:>12.0f}")
        assert node > 5, "an order of magnitude below what a hospital sends"
