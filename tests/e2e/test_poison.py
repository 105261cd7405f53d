"""A live node and images that cost their scoring process: the others are scored, and the node does not notice."""

from __future__ import annotations

import os
import signal
import struct
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from tests.live import LiveNode, build_bank, running, until
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.slow
ROWS, COLUMNS = 5000, 40 * 128


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    build_bank(folder / "banks", folder)
    return folder / "banks"


@pytest.fixture
def node(banks: Path, tmp_path: Path) -> Iterator[LiveNode]:
    sink = StorageSink(tmp_path / "pacs", "PACS")
    host, port = sink.start()
    made = LiveNode(
        tmp_path,
        banks,
        Destination("pacs", "PACS", host, port),
        work={"image_memory_megabytes": 192, "image_seconds": 60.0},
    )
    assert made.command("bank", "activate", "test").returncode == 0
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    sink.stop()


def _chest(study: str, seed: int = 1) -> FileDataset:
    uid = f"2.25.{uuid.uuid4().int}"
    return chest_dataset(seed=seed, StudyInstanceUID=study, SeriesInstanceUID=study, SOPInstanceUID=uid)


def _bomb(study: str) -> FileDataset:
    """Return an image of 0.8 MB that is 25 million pixels when it is decoded (RLE, PS3.5 annex G)."""
    rows = b"".join(bytes([0x81, row % 8]) * (COLUMNS // 128) for row in range(ROWS))
    header = struct.pack("<16L", 2, 64, 64 + len(rows), *[0] * 13)
    ds = _chest(study)
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.PixelData = encapsulate([header + rows + rows])
    ds["PixelData"].is_undefined_length = True
    return ds


def _children(process_id: int) -> set[int]:
    tasks = Path(f"/proc/{process_id}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def _memory(process_id: int) -> int:
    """Return the most memory that a process ever held, in megabytes."""
    status = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))


def _gone(processes: set[int]) -> bool:
    return not any(Path(f"/proc/{process}").exists() for process in processes)


def _verdicts(node: LiveNode) -> dict[str, str]:
    return {
        row["study_instance_uid"]: row["verdict"] for row in node.json("worklist", "list") if row["verdict"]
    }


def test_a_bomb_costs_its_own_study_and_no_other(node: LiveNode, tmp_path: Path) -> None:
    good, bomb, mixed, late = (f"2.25.{uuid.uuid4().int}" for _ in range(4))
    images = [_chest(good), _bomb(bomb), _bomb(mixed), _chest(mixed, seed=2), _chest(late, seed=3)]
    paths = [tmp_path / f"{number}.dcm" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(part10(image))
    with running(node):
        assert node.process is not None
        assert node.send(*paths) == [0] * len(paths)
        until(lambda: len(_verdicts(node)) == 4, "every study is answered")
        verdicts = _verdicts(node)
        assert verdicts[bomb] == "failed"
        assert {verdicts[study] for study in (good, mixed, late)} <= {"above threshold", "below threshold"}
        shown = node.json("worklist", "show", bomb)
        [item] = [item for item in shown["work_items"] if item["kind"] == "analyse"]
        assert (item["state"], item["attempts"]) == ("FAILED", 3)
        assert f"image {images[1].SOPInstanceUID}: " in item["reason"]
        assert "needed more than 192 MB of memory" in item["reason"]
        refusals = [
            i["refusal"] for i in node.json("worklist", "show", mixed)["reports"][0]["result"]["images"]
        ]
        assert [refusal["code"] for refusal in refusals if refusal] == ["poison"]
        assert node.process.poll() is None
        assert _memory(node.process.pid) < 300
        children = _children(node.process.pid)
        assert len(children) == 2
        assert node.stop() == 0
    assert _gone(children)
    assert len(list((tmp_path / "pacs").glob("*.dcm"))) == 4


def test_no_scoring_process_outlives_a_node_that_is_killed(node: LiveNode) -> None:
    node.start()
    assert node.process is not None
    process = node.process
    until(lambda: len(_children(process.pid)) == 2, "both scoring processes run")
    children = _children(process.pid)
    os.kill(min(children), signal.SIGSTOP)  # one that cannot see its input end
    node.kill()
    deadline = time.monotonic() + 30
    while not _gone(children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _gone(children)
