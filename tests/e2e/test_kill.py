"""kill -9 at random moments: every image that got Success is in exactly one report."""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.errors import NodeError
from dicom_node.domain.types import Destination
from tests.live import LiveNode, build_bank, until
from tests.phantoms import chest_dataset, part10
from tests.siege import lay_siege

pytestmark = pytest.mark.slow
STUDIES = int(os.environ.get("DICOM_NODE_KILL_STUDIES", "20"))
RUNS = int(os.environ.get("DICOM_NODE_KILL_RUNS", "1"))


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    build_bank(folder / "banks", folder)
    return folder / "banks"


@pytest.mark.parametrize("run", range(RUNS))
def test_killed_at_random_moments_every_study_has_one_report(banks: Path, tmp_path: Path, run: int) -> None:
    """50 studies and 20 runs: ``DICOM_NODE_KILL_STUDIES=50 DICOM_NODE_KILL_RUNS=20``."""
    rng = random.Random(run)
    sink = StorageSink(tmp_path / "pacs", "PACS")
    host, port = sink.start()
    node = LiveNode(tmp_path, banks, Destination("pacs", "PACS", host, port))
    assert node.command("bank", "activate", "test").returncode == 0
    node.start()
    accepted: list[str] = []
    sent = threading.Thread(target=_send_all, args=(node, tmp_path, accepted))
    sent.start()
    kills = 0
    try:
        while sent.is_alive() or kills < 3:
            time.sleep(rng.uniform(0.2, 4.0))
            node.kill()
            kills += 1
            node.start()
        sent.join()
        until(lambda: len(accepted) == STUDIES and node.idle(), "every study is answered and delivered", 300)
        assert node.stop() == 0
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
        sink.stop()
    reports = [dcmread(BytesIO(path.read_bytes())) for path in (tmp_path / "pacs").glob("*.dcm")]
    assert Counter(str(report.StudyInstanceUID) for report in reports) == Counter(dict.fromkeys(accepted, 1))
    assert {_image(report) for report in reports} == set(accepted)
    assert not list((tmp_path / "store" / "incoming").iterdir()) or kills
    print(f"run {run}: {kills} kills, {len(accepted)} studies, {len(reports)} reports")


def test_killed_fifty_times_wherever_it_is_a_node_has_every_image_in_one_last_report(tmp_path: Path) -> None:
    """Two nodes side by side; ``tests/bench/bench_kill.py`` is the same for as many kills as one likes."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(len(folders)) as pool:
        tallies = list(pool.map(lay_siege, folders, [25, 25], [1, 2]))
    for tally in tallies:
        print(tally)
        assert tally.node_kills + tally.scorer_kills >= 25
        assert tally.node_kills > 5
        assert tally.scorer_kills > 0
        assert tally.images >= tally.studies > 0


def _send_all(node: LiveNode, folder: Path, accepted: list[str]) -> None:
    """Send each study until it gets Success, as a modality with a store-and-retry queue does."""
    for number in range(STUDIES):
        uid = f"2.25.{uuid.uuid4().int}"
        dataset = chest_dataset(
            seed=number % 10, StudyInstanceUID=uid, SeriesInstanceUID=uid, SOPInstanceUID=uid
        )
        path = folder / f"study-{number}.dcm"
        path.write_bytes(part10(dataset))
        while True:
            try:
                if node.send(path) == [0]:
                    break
            except NodeError:
                pass
            time.sleep(0.1)
        accepted.append(uid)


def _image(report: object) -> str:
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0]  # type: ignore[attr-defined]
    return str(evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
