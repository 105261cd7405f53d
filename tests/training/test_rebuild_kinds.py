"""A rebuild of the kinds that learn from their normals: the recipe read back, the verdict, and one that was killed."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dicom_node.config import Eligibility
from dicom_node.score.bank_store import BankStore
from dicom_node.score.manifest import Population, Preprocessing
from dicom_node.score.salad_bank import load_salad_bank
from dicom_node.score.scoring import load_scorer
from tests.training.test_build import ROOT, environment, pictures
from tests.training.test_build_aligned import SMALL
from tests.training.test_build_aligned import built as built_aligned
from tests.training.test_rebuild import rebuilt
from tests.training.test_train_salad import AT, TINY
from training.build_aligned import AlignedOrder
from training.recipe import REBUILD_INPUT, REBUILT_FROM, order_like
from training.salad_build import SaladOrder, build_salad


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def built_salad(images: Path, out: Path, **changes: Any) -> SaladOrder:
    options: dict[str, Any] = {"name": "salad", "recipe": TINY, "calibration": 10} | changes
    order = SaladOrder(images=images, out=out, **options)
    build_salad(order, created_at=AT, started=lambda _: None, progress=lambda _: None, trained=lambda _: None)
    return order


def read_back(folder: Path, order: SaladOrder | AlignedOrder) -> dict[str, tuple[object, object]]:
    """Return what differs between an order and the one read back from its bank."""
    bank = load_scorer(folder).bank
    again = order_like(bank, folder, images=order.images, name=order.name, calibration_images=None)
    names = [field.name for field in dataclasses.fields(order)]
    pairs = {name: (getattr(order, name), getattr(again, name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def test_the_order_of_a_salad_bank_is_read_back(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 36)
    order = built_salad(
        folder, tmp_path / "banks", k=40, weighting="weighted", calibration=8.0, false_positive_rate=0.1,
        recipe=dataclasses.replace(TINY, seed=3, reconstruction="mse", learning_rate=1e-3),
        keep_duplicates=True, population=Population(views=("PA",), institutions=("HERE",)),
        rules=Eligibility(modalities=("DX",)), preprocessing=Preprocessing(rescale="none"),
    )  # fmt: skip
    assert load_salad_bank(tmp_path / "banks" / "salad").manifest.k == 28
    differing = read_back(tmp_path / "banks" / "salad", order)
    assert set(differing) <= {"preprocessing", "device", "checkpoint_seconds"}
    given, again = differing["preprocessing"]
    assert isinstance(given, Preprocessing)
    assert isinstance(again, Preprocessing)
    assert (again.window, again.rescale, again.size) == (given.window, given.rescale, 32)


def test_a_rebuild_killed_in_its_training_leaves_the_old_bank_and_ends_when_started_again(
    tmp_path: Path,
) -> None:
    folder, banks = pictures(tmp_path / "in", 40), tmp_path / "banks"
    built_salad(folder, banks, recipe=dataclasses.replace(TINY, epochs=8))
    BankStore(banks).activate("salad")
    pictures(folder, 40, first=40)
    options = ["--like", str(banks / "salad"), "--images", str(folder), "--json"]
    command = [sys.executable, "-m", "training", "rebuild", *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        told = next(line for line in process.stderr if line.startswith("round 0, epoch 3"))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, told
    assert BankStore(banks).active() == ("salad",)
    assert BankStore(banks).names() == ("salad",)
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=True)
    verdict = json.loads(done.stdout)
    assert verdict["bank"] == "salad-r1"
    assert verdict["state"] in ("not worse", "worse")
    assert verdict["new"]["images"] == verdict["old"]["images"] == 20
    new = load_salad_bank(banks / "salad-r1").manifest
    assert new.recipe[REBUILT_FROM] == verdict["active_hash"]
    assert new.recipe[REBUILD_INPUT]
    assert new.salad == load_salad_bank(banks / "salad").manifest.salad
    kept = sorted(path.name for path in banks.iterdir() if path.suffix not in (".json", ".png"))
    assert [name for name in kept if not name.endswith(".lock")] == ["salad", "salad-r1"]


def test_an_aligned_bank_is_rebuilt_judged_and_then_unchanged(tmp_path: Path) -> None:
    folder, banks = pictures(tmp_path / "in", 30), tmp_path / "banks"
    built_aligned(folder, banks, calibration=0.25)
    order = AlignedOrder(images=folder, out=banks, preprocessing=SMALL, k=3, calibration=0.25)
    assert read_back(banks / "aligned", order) == {}
    pictures(folder, 42, first=500)
    verdict = rebuilt(banks / "aligned", folder)
    assert (verdict.bank, verdict.active) == ("aligned-r1", "aligned")
    assert verdict.state in ("not worse", "worse")
    assert verdict.new is not None
    assert verdict.new.images == 20
    bank = load_scorer(banks / "aligned-r1").bank
    assert bank.manifest.kind == "aligned-knn"
    assert bank.manifest.recipe[REBUILT_FROM] == verdict.active_hash
    assert rebuilt(banks / "aligned-r1", folder).state == "unchanged"


def test_a_salad_bank_of_far_fewer_normals_is_worse(tmp_path: Path) -> None:
    built_salad(pictures(tmp_path / "in", 120), tmp_path / "banks", calibration=10.0)
    verdict = rebuilt(tmp_path / "banks" / "salad", pictures(tmp_path / "few", 60, first=200))
    assert verdict.state == "worse"
    assert verdict.reasons[-1] == "it holds 30 normals, the active bank 110"
