"""A bank rebuilt from the node's own archive by the real builder; killed on the way; scoring goes on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dicom_node.config import Db, Eligibility
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.domain.types import ImageResult
from dicom_node.pipeline import admin
from dicom_node.score.bank_store import BankStore
from dicom_node.score.scorer import Analyser
from tests.integration.test_bank_life import receive
from tests.integration.test_pipeline import Site
from tests.training.test_build import ROOT, built, dicom, environment, order, pictures
from training.embed import SHARD

STUDIES = SHARD + 24


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the configuration of a node with an active bank and studies that are marked normal."""
    banks = tmp_path / "banks"
    built(order(pictures(tmp_path / "in", 26), banks, name="chest", calibration="leave-one-out"))
    BankStore(banks).activate("chest")
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    upgrade(engine)
    site = Site(engine, tmp_path / "store")
    for number in range(STUDIES):
        study = receive(site, number, f"P{number}")
        admin.mark(engine, study, "normal", "ada", site.clock())
    engine.dispose()
    path = tmp_path / "config.toml"
    path.write_text(
        f'[store]\nroot = "{tmp_path / "store"}"\nreserve_megabytes = 0\n[score]\nbanks = "{banks}"\n'
        f'[db]\nurl = "sqlite:///{tmp_path / "node.db"}"\n'
    )
    return path


def command(config: Path) -> list[str]:
    return [
        sys.executable, "-m", "dicom_node", "bank", "rebuild", "--marked-normal", "--json", "--config", str(config),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_rebuild_killed_with_its_builder_leaves_the_old_bank_and_goes_on(
    config: Path, tmp_path: Path
) -> None:
    banks = BankStore(tmp_path / "banks")
    with subprocess.Popen(command(config), cwd=ROOT, env=environment(), start_new_session=True) as process:
        until = time.monotonic() + 180
        while not list(banks.root.glob(".chest-r1.work/*.safetensors")):
            assert process.poll() is None, "the rebuild ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (banks.active(), banks.names()) == (("chest",), ("chest",))
    done = subprocess.run(
        command(config), cwd=ROOT, env=environment(), capture_output=True, check=False, text=True
    )
    verdict = json.loads(done.stdout)
    assert (verdict["bank"], verdict["new"]["images"], verdict["active"]) == ("chest-r1", 20, "chest")
    if verdict["state"] == "not worse":
        assert (done.returncode, banks.active()) == (0, ("chest-r1",))
    else:
        assert (done.returncode, banks.active()) == (1, ("chest",))
    assert banks.manifest("chest-r1").normal_images == STUDIES - 20
    assert not [path.name for path in banks.root.iterdir() if path.name.endswith(".work")]


def test_every_image_is_scored_while_banks_change_place(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 26)
    banks = BankStore(tmp_path / "banks")
    for seed, name in enumerate(("one", "two")):
        built(order(folder, banks.root, name=name, seed=seed, calibration="leave-one-out", views=("squash",)))
    banks.activate("one")
    node = Analyser(banks.root, Eligibility(), threads=1)
    ds = dicom(tmp_path / "x.dcm", 7)
    results: list[ImageResult] = []
    stop = threading.Event()

    def score() -> None:
        while not stop.is_set():
            results.append(node.analyse(ds))

    scoring = threading.Thread(target=score)
    scoring.start()
    hashes = {name: banks.manifest(name).bank_hash for name in ("one", "two")}
    for turn in range(20):
        old, new = ("one", "two") if turn % 2 == 0 else ("two", "one")
        banks.replace(old, hashes[old], new)
        seen = len(results)
        while len(results) < seen + 2 and scoring.is_alive():
            time.sleep(0.001)
    stop.set()
    scoring.join()
    assert all(result.score is not None for result in results)
    assert {result.provenance.bank_hash for result in results if result.provenance} == set(hashes.values())
