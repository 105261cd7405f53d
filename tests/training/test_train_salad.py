"""A small SALAD training from files to a served bank; killed, resumed, and compared byte for byte."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.bank_store import BankStore
from dicom_node.score.files import read_image
from dicom_node.score.salad import SaladScorer
from dicom_node.score.salad_bank import load_salad_bank
from dicom_node.score.scorer import Analyser
from tests.training.test_build import pictures
from training.cli import app
from training.dataset import Item
from training.phantoms_cli import run as draw
from training.salad_build import SaladOrder, SaladSummary, build_salad
from training.salad_images import Pictures
from training.train_salad import Epoch, Recipe, Trained, train

ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TINY = Recipe(size=32, channels=2, dim=12, rounds=2, epochs=2, batch=8)


class StoppedError(Exception):
    """What stands in for a kill inside one process."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def some(count: int = 20, seed: int = 0) -> Pictures:
    shard = np.random.default_rng(seed).random((count, 32, 32), dtype=np.float32)
    items = [Item(f"file-{n}", f"pixels-{seed}-{n}", f"patient-{n}") for n in range(count)]
    return Pictures(items, [(0, n) for n in range(count)], [shard], [], 0)


def trained(
    checkpoint: Path, recipe: Recipe = TINY, stop_after: int | None = None, pictures: Pictures | None = None
) -> tuple[Trained, list[Epoch]]:
    told: list[Epoch] = []

    def progress(epoch: Epoch) -> None:
        told.append(epoch)
        if len(told) == stop_after:
            raise StoppedError

    result = train(pictures or some(), recipe, checkpoint=checkpoint, progress=progress, every_seconds=0.0)
    return result, told


def same(one: Trained, two: Trained) -> bool:
    weights = zip(one.encoder.state_dict().items(), two.encoder.state_dict().items(), strict=True)
    return (
        np.array_equal(one.memory, two.memory)
        and one.curve == two.curve
        and all(a == b and torch.equal(x, y) for (a, x), (b, y) in weights)
    )


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_training_stopped_after_any_epoch_ends_as_one_that_was_not(stop_after: int, tmp_path: Path) -> None:
    whole, told = trained(tmp_path / "whole")
    assert [(e.round, e.epoch) for e in told] == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    with pytest.raises(StoppedError):
        trained(tmp_path / "part", stop_after=stop_after)
    resumed, rest = trained(tmp_path / "part")
    assert [(e.round, e.epoch) for e in rest] == [(e.round, e.epoch) for e in told[stop_after:]]
    assert same(whole, resumed)


def test_only_the_first_round_is_without_anchors_and_each_adds_a_tenth(tmp_path: Path) -> None:
    result, _ = trained(tmp_path / "c")
    assert [epoch.anchors for epoch in result.curve] == [0, 0, 2, 2, 4, 4]


def test_memory_rows_have_unit_length_and_the_encoder_stands_still(tmp_path: Path) -> None:
    result, _ = trained(tmp_path / "c")
    assert result.memory.shape == (20, 12)
    assert np.allclose(np.linalg.norm(result.memory, axis=1), 1.0, atol=1e-5)
    assert not result.encoder.training
    assert not any(parameter.requires_grad for parameter in result.encoder.parameters())


def test_a_checkpoint_of_other_images_or_another_recipe_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    expected, _ = trained(tmp_path / "fresh")
    for number, (recipe, images) in enumerate(
        ((dataclasses.replace(TINY, seed=1), some()), (TINY, some(seed=1)))
    ):
        trained(tmp_path / f"other-{number}", recipe, pictures=images)
        again, told = trained(tmp_path / f"other-{number}")
        assert len(told) == 6
        assert same(again, expected)
    (tmp_path / "damaged").write_bytes((tmp_path / "fresh").read_bytes()[:1000])
    again, told = trained(tmp_path / "damaged")
    assert len(told) == 6
    assert same(again, expected)


def test_a_training_learns_to_tell_its_images_apart_and_to_draw_them(tmp_path: Path) -> None:
    recipe = dataclasses.replace(TINY, rounds=0, epochs=25, learning_rate=2e-3)
    curve = trained(tmp_path / "c", recipe)[0].curve
    assert curve[-1].reconstruction < 0.9 * curve[0].reconstruction
    assert curve[-1].neighbourhood < 0.7 * curve[0].neighbourhood


def test_the_mean_squared_error_is_an_option(tmp_path: Path) -> None:
    first = [
        trained(tmp_path / kind, dataclasses.replace(TINY, rounds=0, epochs=1, reconstruction=kind))[0].curve[0]  # type: ignore[arg-type]
        for kind in ("l1", "mse")
    ]
    assert first[0].reconstruction != first[1].reconstruction


def test_one_image_is_too_few_and_an_unfit_size_is_said(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="at least two"):
        trained(tmp_path / "c", pictures=some(1))
    with pytest.raises(BankError, match="4 times a power of two"):
        trained(tmp_path / "c", dataclasses.replace(TINY, size=48))


def built(images: Path, out: Path, **changes: Any) -> SaladSummary:
    order = SaladOrder(images=images, out=out, **({"recipe": TINY, "checkpoint_seconds": 0.0} | changes))
    return build_salad(
        order, created_at=AT, started=lambda _: None, progress=lambda _: None, trained=lambda _: None
    )


def file_id(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def test_phantoms_become_a_bank_that_the_node_serves(tmp_path: Path) -> None:
    draw(tmp_path / "in", 30, form="png", shape=(96, 80))
    recipe = Recipe(size=64, channels=4, rounds=1, epochs=1)
    summary = built(tmp_path / "in", tmp_path / "out", recipe=recipe, calibration=6)
    assert (summary.normal_images, summary.calibration_images, summary.k) == (24, 6, 24)
    manifest = BankStore(tmp_path / "out").manifest("salad")
    assert (manifest.kind, manifest.dim, manifest.preprocessing.size) == ("salad", 200, 64)
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)
    assert manifest.salad is not None
    assert (manifest.salad.rounds, manifest.salad.epochs, manifest.salad.channels) == (1, 1, 4)
    BankStore(tmp_path / "out").activate("salad")
    node = Analyser(tmp_path / "out", Eligibility(), kinds=("salad",), threads=1)
    result = node.analyse_file(tmp_path / "in" / "phantom-000000.png")
    assert result.score is not None
    assert 0 < result.score.value < 1
    assert result.provenance is not None
    assert result.provenance.bank_hash == summary.bank_hash


def test_the_calibration_is_what_the_scorer_gives_to_images_that_were_held_out(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 40)
    built(images, tmp_path / "out", calibration=0.25, k=7)
    bank = load_salad_bank(tmp_path / "out" / "salad")
    scorer = SaladScorer(bank)
    scores = {path: scorer.score_images([read_image(path)[0]])[0] for path in sorted(images.iterdir())}
    trained_on = {path for path in scores if file_id(path) in bank.images}
    assert (len(trained_on), len(bank.calibration.scores)) == (30, 10)
    held = sorted(score.value for path, score in scores.items() if path not in trained_on)
    assert np.allclose(held, bank.calibration.scores, rtol=1e-5)


def test_curves_are_written_beside_the_bank_and_the_work_folder_is_gone(tmp_path: Path) -> None:
    summary = built(pictures(tmp_path / "in", 30), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "salad", "salad.training.json", "salad.training.png",
    ]  # fmt: skip
    curves = json.loads((tmp_path / "out" / "salad.training.json").read_bytes())
    assert len(curves["epochs"]) == summary.epochs == 6
    assert curves["epochs"][-1]["total"] == summary.last_loss
    assert curves["recipe"]["learning_rate"] == 1e-4
    with Image.open(tmp_path / "out" / "salad.training.png") as picture:
        assert picture.size == (960, 540)


def test_the_same_images_make_the_same_bank_and_another_seed_another(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 30)
    one, two = (built(images, tmp_path / name) for name in ("a", "b"))
    assert one.bank_hash == two.bank_hash
    other = built(images, tmp_path / "c", recipe=dataclasses.replace(TINY, seed=1))
    assert other.bank_hash != one.bank_hash


def test_separate_calibration_images_leave_all_others_to_the_training(tmp_path: Path) -> None:
    images, others = pictures(tmp_path / "in", 25), pictures(tmp_path / "other", 12, first=23)
    summary = built(images, tmp_path / "out", calibration_images=others)
    assert (summary.normal_images, summary.calibration_images, summary.shared_with_bank) == (25, 10, 2)
    assert summary.calibration == "separate"


def test_the_splits_of_a_csv_are_kept_to_and_nothing_is_trained_on_what_is_kept_for_a_test(
    tmp_path: Path,
) -> None:
    images = pictures(tmp_path / "in", 40)
    names = ["bank"] * 25 + ["calibration"] * 10 + ["test"] * 5
    split = dict(zip(sorted(images.iterdir()), names, strict=True))
    rows = "".join(f"in/{path.name},{name}\n" for path, name in split.items())
    (tmp_path / "list.csv").write_text("path,split\n" + rows)
    summary = built(tmp_path / "list.csv", tmp_path / "out")
    assert (summary.normal_images, summary.calibration_images, summary.kept_for_test) == (25, 10, 5)
    bank = load_salad_bank(tmp_path / "out" / "salad")
    assert set(bank.images) == {file_id(path) for path, name in split.items() if name == "bank"}
    assert bank.manifest.calibration == "held-out"


def test_what_cannot_be_built_says_why(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="at least 20 must stand in the bank"):
        built(pictures(tmp_path / "few", 21), tmp_path / "out")
    images = pictures(tmp_path / "in", 30)
    (images / "broken.png").write_bytes((images / "p0001.png").read_bytes()[:100])
    (images / "copy.png").write_bytes((images / "p0001.png").read_bytes())
    summary = built(images, tmp_path / "out")
    assert [name for name, _ in summary.skipped] == ["broken.png"]
    assert summary.duplicates == 1
    with pytest.raises(BankError, match="a bank is never changed"):
        built(images, tmp_path / "out")


def arguments(images: Path, out: Path, *more: object) -> list[str]:
    options = {"--images": images, "--out": out, "--size": 32, "--base": 2, "--rounds": 1, "--epochs": 8}
    given = [str(word) for pair in options.items() for word in pair]
    return ["train-salad", *given, "--batch", "8", "--device", "cpu", *map(str, more)]


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_makes_the_same_bank(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 40)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = ("--checkpoint-seconds", 0, "--json")
    python = (sys.executable, "-m", "training")
    with subprocess.Popen(
        [*python, *arguments(images, tmp_path / "out", *options)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        checkpoint = tmp_path / "out" / ".salad.work" / "training.safetensors"
        while not checkpoint.exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
                pytest.fail("the training ended before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert BankStore(tmp_path / "out").names() == ()
    again = subprocess.run(
        [*python, *arguments(images, tmp_path / "out", *options)], cwd=ROOT, env=environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    summary = json.loads(again.stdout)
    assert summary["reused"] == 40
    told = sum(line.startswith("round ") for line in again.stderr.splitlines())
    assert 0 < told < summary["epochs"] == 16
    recipe = dataclasses.replace(TINY, dim=200, rounds=1, epochs=8)
    built(images, tmp_path / "straight", recipe=recipe)
    resumed, whole = (load_salad_bank(tmp_path / name / "salad") for name in ("out", "straight"))
    assert np.array_equal(resumed.memory, whole.memory)
    assert resumed.manifest.files == whole.manifest.files


@pytest.mark.parametrize(
    ("options", "code", "seen"),
    [
        (("--size", 100), 2, "4 times a power of two"),
        (("--calibration", 1.5), 2, "--calibration is 1.5"),
        (("--fpr", 1), 2, "--fpr is 1"),
        (("--device", "abacus"), 2, "device is 'abacus'; here are cpu"),
        ((), 1, "holds no DICOM, PNG or JPEG file"),
    ],
)
def test_the_commands_exit_codes_tell_options_from_work(
    options: tuple[object, ...], code: int, seen: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    done = CliRunner().invoke(app, arguments(tmp_path / "empty", tmp_path / "out", *options))
    assert done.exit_code == code
    assert seen in done.output
