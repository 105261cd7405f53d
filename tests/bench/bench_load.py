"""Four senders send CR images of 10 MB while the node scores them: what is refused, how fast, in how much memory.

``DICOM_NODE_LOAD_IMAGES`` says how many (default 40), each a study of its own: 2500 x 2048 pixels of 16 bits, ten
phantoms that take turns. Each sender is DCMTK's storescu with one association for five images, and then the next. The
node is started by `serve`, with two workers, and scores ten views; the machine is its senders' and its PACS's, too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from tests.live import LiveNode, build_bank, running, until
from tests.peers import dcmtk
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.peer("dcmtk")
IMAGES = int(os.environ.get("DICOM_NODE_LOAD_IMAGES", "40"))
SENDERS, AT_ONCE, SHAPE, PHANTOMS = 4, 5, (2500, 2048), 10
PDU = "131072"


def test_load(tmp_path: Path) -> None:
    """Print MB/s, memory, and how long the node goes on working when the last image has come."""
    build_bank(tmp_path / "banks", tmp_path, views=None)
    paths = _write(tmp_path / "images")
    size = sum(path.stat().st_size for path in paths) / 1e6
    with StorageSink(tmp_path / "pacs", "PACS") as sink:
        node = LiveNode(
            tmp_path,
            tmp_path / "banks",
            Destination("pacs", "PACS", *sink.address),
            gather={"quiet_seconds": 5.0, "open_association_seconds": 60.0, "poll_seconds": 0.5},
            queue={"lease_seconds": 60.0, "poll_seconds": 0.25, "backoff_seconds": 2.0},
        )
        assert node.command("bank", "activate", "test").returncode == 0
        with running(node):
            assert node.process is not None
            began = time.monotonic()
            with ThreadPoolExecutor(SENDERS) as pool:
                stored = sum(pool.map(lambda first: _send(node.port, paths[first::SENDERS]), range(SENDERS)))
            sent = time.monotonic()
            meanwhile = len(sink.files)
            until(lambda: len(sink.files) == IMAGES, "every study has its report", 3600)
            drained = time.monotonic()
            memory = _most_memory(node.process.pid)
            assert node.stop() == 0
        refused = node.log.read_text().count('"C-STORE refused"')
    for folder in ("images", "store"):
        shutil.rmtree(tmp_path / folder)
    rate, took, late = size / (sent - began), sent - began, drained - sent
    print(f"\n{IMAGES} CR of {size / IMAGES:.2f} MB, {SENDERS} senders, {AT_ONCE} images an association")
    print(
        f"{stored} stored, {refused} refused; {rate:.0f} MB/s ({took:.1f} s), {meanwhile} reports arrived meanwhile,"
    )
    print(f"the last one {late:.1f} s after the last image; receiving process at most {memory} MB")
    assert (stored, refused) == (IMAGES, 0)


def _write(folder: Path) -> list[Path]:
    folder.mkdir()
    drawn = [
        chest_dataset(seed=seed, shape=SHAPE, form="cr", bits=14, photometric="MONOCHROME1")
        for seed in range(min(PHANTOMS, IMAGES))
    ]
    paths = [folder / f"{number:04}.dcm" for number in range(IMAGES)]
    for number, path in enumerate(paths):
        dataset = drawn[number % len(drawn)]
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            setattr(dataset, keyword, f"2.25.{number + 1}")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path.write_bytes(part10(dataset))
    return paths


def _send(port: int, paths: list[Path]) -> int:
    """Return how many were answered with Success; one that is refused does not end the association."""
    command = [
        dcmtk("storescu"),
        "-v",
        "--no-halt",
        "--max-pdu",
        PDU,
        "--max-send-pdu",
        PDU,
        "127.0.0.1",
        str(port),
    ]
    stored = 0
    for first in range(0, len(paths), AT_ONCE):
        named = map(str, paths[first : first + AT_ONCE])
        done = subprocess.run([*command, *named], capture_output=True, text=True, timeout=600, check=False)
        stored += (done.stdout + done.stderr).count("Received Store Response (Success)")
    return stored


def _most_memory(process_id: int) -> int:
    """Return the most memory that a process ever held, in megabytes."""
    status = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))
