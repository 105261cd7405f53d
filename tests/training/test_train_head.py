from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm
from dicom_node.score.backbone import LITE0_SHA256, load_backbone
from dicom_node.score.bank import STATISTICS, load_bank
from dicom_node.score.files import read_image
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.scoring import Scorer, embed_views
from dicom_node.score.view_names import draw_views
from dicom_node.score.views import make_views
from training.build import Order, build
from training.head_checkpoint import Progress
from training.head_epochs import run_epochs
from training.head_pairs import CachedPairs, batches
from training.head_recipe import HeadRecipe, fitted, read_head, record_of, statistics_path
from training.siamese import new_head, siamese_loss
from training.train_head import HeadOrder, HeadSummary, train_head

ROOT = Path(__file__).resolve().parents[2]
MEAN, STD = NORMALISATIONS["half"]
SMALL = Preprocessing(mean=MEAN, std=STD, size=64, resize_short=72)


def pictures(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).random((9, 7), dtype=np.float32)
        grey = make_views(coarse, ("squash",), 90, 90)[0]
        Image.fromarray(np.rint(grey * 255).astype(np.uint8)).save(folder / f"p{seed:04d}.png")
    return folder


def recipe(**changes: Any) -> HeadRecipe:
    options: dict[str, Any] = {
        "backbone": "lite0", "weights_sha256": LITE0_SHA256, "preprocessing": SMALL,
        "views_per_image": 3, "epochs": 4, "batch": 8, "lr": 1e-3, "held_out": 0.2,
    }  # fmt: skip
    return HeadRecipe(**(options | changes))


def trained(
    images: Path, out: Path, epoch_done: Callable[[int, float, float], None] = lambda *_: None, **changes: Any
) -> HeadSummary:
    cache = changes.pop("cache", None)
    order = HeadOrder(images, out, recipe(**changes), cache=cache)
    return train_head(
        order,
        device="cpu",
        started=lambda _: None,
        progress=lambda _: None,
        epoch_done=epoch_done,
        checkpoint_seconds=0,
    )


class StoppedError(Exception):
    """Stands for the power cut."""


def stop_at(epoch: int) -> Callable[[int, float, float], None]:
    def told(number: int, *_: float) -> None:
        if number == epoch:
            raise StoppedError

    return told


def bank_of(
    images: Path, out: Path, head: Path, told: dict[str, list[str]] | None = None, **changes: Any
) -> None:
    read, statistics = read_head(head)
    options: dict[str, Any] = {
        "images": images, "out": out, "backbone": "lite0", "views": ("tl", "br-flip"),
        "preprocessing": SMALL, "head": read, "statistics": statistics, "patches": 0,
    }  # fmt: skip
    summary = build(
        Order(**(options | changes)),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        started=lambda _: None,
        progress=lambda _: None,
    )
    if told is not None:
        told[out.name] = summary.warnings


def test_training_lowers_the_loss_and_writes_head_curves_and_record(tmp_path: Path) -> None:
    summary = trained(pictures(tmp_path / "in", 30), tmp_path / "head.safetensors", epochs=12)
    head, statistics = read_head(tmp_path / "head.safetensors")
    record = record_of(head)
    assert record is not None
    assert (head.description, statistics) == ("linear 1280-640-640", b"")
    assert (
        (summary.images, summary.held_out_images) == (24, 6) == (len(record.trained_on), record.held_out_images)
    )
    assert record.recipe == recipe(epochs=12)
    curves = json.loads((tmp_path / "head.training.json").read_text())
    assert len(curves["losses"]) == len(curves["held_out_losses"]) == 12
    assert curves["losses"][-1] < curves["losses"][0] - 0.05
    assert curves["held_out_losses"][-1] < curves["held_out_losses"][0] - 0.05
    assert (tmp_path / "head.training.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_one_step_is_adams_with_the_papers_betas() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(8, 2, 1280)).astype(np.float32)
    pairs = CachedPairs(features, features[:2], 8, 0, "cpu")
    done = Progress()
    run_epochs(recipe(epochs=1), pairs, load_backbone("lite0"), done, lambda _: None)
    head = new_head(1280, 0)
    ((one, two),) = pairs.epoch(1)
    gradient = torch.autograd.grad(siamese_loss(head, one, two), head.adaptor.weight)[0]
    # The first step of Adam, bias corrected: m / (1 - b1) = g, v / (1 - b2) = g * g.
    expected = head.adaptor.weight.detach() - 1e-3 * gradient / (gradient.abs() + 1e-8)
    assert torch.allclose(done.head["adaptor.weight"], expected, atol=1e-6)
    assert torch.allclose(done.adam["0/exp_avg"], 0.5 * gradient, atol=1e-7)
    assert torch.allclose(done.adam["0/exp_avg_sq"], 0.001 * gradient**2, atol=1e-9)


def test_an_epoch_has_every_image_once_with_two_different_views_of_it() -> None:
    features = np.arange(10 * 3, dtype=np.float32).reshape(10, 3, 1)
    pairs = CachedPairs(features, features[:2], 4, 7, "cpu")
    seen: list[tuple[float, float]] = []
    for one, two in pairs.epoch(1):
        assert len(one) <= 4
        seen += list(zip(one[:, 0].tolist(), two[:, 0].tolist(), strict=True))
    assert sorted(int(a) // 3 for a, _ in seen) == list(range(10))
    assert all(int(a) // 3 == int(b) // 3 and a != b for a, b in seen)
    assert [torch.equal(a, b) for (a, _), (b, _) in zip(pairs.epoch(1), pairs.epoch(1), strict=True)] == [
        True
    ] * 3
    assert not torch.equal(next(pairs.epoch(1))[0], next(pairs.epoch(2))[0])
    assert sum(len(rows) for rows in batches(10, 4, np.random.default_rng(0))) == 10


@pytest.mark.parametrize("bn", ["frozen", "adapt"])
def test_a_resumed_training_gives_the_same_files_as_an_uninterrupted_one(bn: str, tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 22)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    straight = trained(images, tmp_path / "a" / "head.safetensors", bn=bn)
    with pytest.raises(StoppedError):
        trained(images, tmp_path / "b" / "head.safetensors", stop_at(2), bn=bn)
    assert not (tmp_path / "b" / "head.safetensors").exists()
    resumed = trained(images, tmp_path / "b" / "head.safetensors", bn=bn)
    assert (straight.resumed_at, resumed.resumed_at) == (0, 2)
    names = ["head.safetensors", "head.training.json"]
    for name in [*names, *(["head.backbone_bn.safetensors"] if bn == "adapt" else [])]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_checkpoint_of_another_recipe_is_not_gone_on_from(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 22)
    with pytest.raises(StoppedError):
        trained(images, tmp_path / "head.safetensors", stop_at(2))
    assert trained(images, tmp_path / "head.safetensors", lr=1e-4).resumed_at == 0


def test_the_best_held_out_epoch_is_kept_if_that_is_asked_for(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 22)
    losses: dict[int, float] = {}

    def told(number: int, _: float, held_out: float) -> None:
        losses[number] = held_out

    options = {"epochs": 8, "lr": 0.1, "cache": tmp_path / "cache"}
    best = trained(images, tmp_path / "best.safetensors", told, select="best-heldout", **options)
    least = min(losses, key=lambda number: losses[number])
    assert (best.epoch, best.held_out_loss) == (least, losses[least])
    until = trained(images, tmp_path / "until.safetensors", **(options | {"epochs": least}))
    heads = [read_head(Path(summary.head))[0] for summary in (best, until)]
    assert np.array_equal(heads[0].layers[0][1], heads[1].layers[0][1])
    assert trained(images, tmp_path / "last.safetensors", **options).epoch == 8


def test_adapting_stores_statistics_that_the_bank_and_the_node_use(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 30)
    trained(images, tmp_path / "head.safetensors", bn="adapt", epochs=2)
    _, statistics = read_head(tmp_path / "head.safetensors")
    bank_of(images, tmp_path / "banks", tmp_path / "head.safetensors")
    bank = load_bank(tmp_path / "banks" / "normals")
    assert bank.statistics == statistics == (tmp_path / "banks" / "normals" / STATISTICS).read_bytes()
    assert bank.manifest.recipe["head.bn"] == "adapt"
    published = load_backbone("lite0")
    scorer = Scorer(bank, published)
    greys = [read_image(path)[0] for path in sorted(images.iterdir())]
    scores = np.sort([score.value for score in scorer.score_images(greys)])
    assert (scores[:24] < 2e-6).all()
    assert np.allclose(scores[24:], bank.calibration.scores, rtol=1e-3)
    views = make_views(greys[0], bank.manifest.views, 64, 72)[None]
    drifted, plain = embed_views(scorer.backbone, views, SMALL), embed_views(published, views, SMALL)
    assert np.abs(drifted - plain).max() > 0.1 * np.abs(plain).max()


def test_another_rate_and_more_epochs_find_the_drift_as_it_was_and_give_what_a_training_alone_gives(
    tmp_path: Path,
) -> None:
    images, cache = pictures(tmp_path / "in", 22), tmp_path / "cache"
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    trained(images, tmp_path / "first.safetensors", bn="adapt", epochs=2, cache=cache)
    (kept,) = cache.glob("drift-*")
    before = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    trained(images, tmp_path / "a" / "head.safetensors", bn="adapt", lr=1e-4, epochs=3, cache=cache)
    trained(images, tmp_path / "b" / "head.safetensors", bn="adapt", lr=1e-4, epochs=3)
    for name in ("head.safetensors", "head.training.json", "head.backbone_bn.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    after = {path.name: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert sorted(after) == ["00001.safetensors", "00002.safetensors", "00003.safetensors"]
    assert {name: after[name] for name in before} == before
    trained(images, tmp_path / "other.safetensors", bn="adapt", seed=1, epochs=1, cache=cache)
    assert len(list(cache.glob("drift-*"))) == 2


def test_a_head_meets_only_the_backbone_the_images_and_the_statistics_it_was_trained_with(
    tmp_path: Path,
) -> None:
    images = pictures(tmp_path / "in", 30)
    trained(images, tmp_path / "head.safetensors", epochs=1)
    head, _ = read_head(tmp_path / "head.safetensors")
    with pytest.raises(BankError, match="was trained with lite0 of SHA-256"):
        fitted(head, b"", load_backbone("lite0-random"), SMALL)
    with pytest.raises(BankError, match="trained with mean"):
        bank_of(images, tmp_path / "banks", tmp_path / "head.safetensors", preprocessing=Preprocessing(size=64))
    with pytest.raises(BankError, match="not those it was trained with"):
        fitted(
            head,
            batch_norm.to_bytes(load_backbone("lite0").module),
            load_backbone("lite0"),
            SMALL,
        )


def test_lost_or_changed_statistics_are_noticed(tmp_path: Path) -> None:
    trained(pictures(tmp_path / "in", 22), tmp_path / "head.safetensors", bn="adapt", epochs=1)
    path = statistics_path(tmp_path / "head.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BankError, match="the head was trained with"):
        read_head(tmp_path / "head.safetensors")
    path.unlink()
    with pytest.raises(BankError, match="cannot be read"):
        read_head(tmp_path / "head.safetensors")


def test_a_bank_warns_if_it_is_calibrated_with_images_its_head_was_trained_on(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 30)
    trained(images, tmp_path / "head.safetensors", epochs=1)
    warned = {}
    for seed in (0, 1):
        bank_of(images, tmp_path / f"banks{seed}", tmp_path / "head.safetensors", seed=seed, told=warned)
    # The same share and seed hold out the same patients, so the first bank is calibrated with unseen ones.
    assert not any("the head was trained on" in warning for warning in warned["banks0"])
    assert any("the head was trained on" in warning for warning in warned["banks1"])


def test_files_kept_for_calibration_or_test_are_not_trained_on(tmp_path: Path) -> None:
    pictures(tmp_path / "in", 30)
    splits = ["calibration"] * 4 + ["test"] * 3 + [""] * 23
    lines = [f"in/p{seed:04d}.png,{split}" for seed, split in enumerate(splits)]
    (tmp_path / "list.csv").write_text("\n".join(["path,split", *lines]))
    summary = trained(tmp_path / "list.csv", tmp_path / "head.safetensors", epochs=1)
    assert summary.images + summary.held_out_images == 23


def test_too_few_normals_or_an_existing_head_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="19 usable normals out of 19 files"):
        trained(pictures(tmp_path / "in", 19), tmp_path / "head.safetensors")
    (tmp_path / "head.safetensors").touch()
    with pytest.raises(BankError, match="never changed"):
        trained(tmp_path / "in", tmp_path / "head.safetensors")


def test_a_backbone_without_batch_norm_cannot_adapt(tmp_path: Path) -> None:
    from dicom_node.score.backbone import TorchBackbone
    from training.head_pairs import FreshPairs

    module = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten())
    backbone = TorchBackbone("plain", module, "0" * 64, licence="none", training_data="none")
    with ThreadPoolExecutor(1) as pool, pytest.raises(BankError, match="no BatchNorm layers"):
        FreshPairs([], [], None, backbone, pool, 2, 0)  # type: ignore[arg-type]


def test_the_same_file_is_cut_the_same_under_any_name_and_otherwise_in_another_draw(tmp_path: Path) -> None:
    from dicom_node.config import Eligibility
    from training.dataset import Reader
    from training.manifest import Entry
    from training.random_views import random_reader

    folder = pictures(tmp_path / "in", 2)
    (folder / "copy.png").write_bytes((folder / "p0000.png").read_bytes())
    plain = Reader(preprocessing=SMALL, views=("tl",), rules=Eligibility(), key=b"k")

    def cut(name: str, draw: tuple[int, ...]) -> np.ndarray:
        views = random_reader(plain, 3, draw).read(Entry(folder / name))[1]
        assert views is not None
        return views

    assert np.array_equal(cut("p0000.png", (0, 1)), cut("copy.png", (0, 1)))
    assert not np.array_equal(cut("p0000.png", (0, 1)), cut("p0000.png", (0, 2)))
    assert cut("p0001.png", (0, 1)).shape == (3, 64, 64)
    assert len(draw_views(np.random.default_rng(0), 3)) == 3


@pytest.mark.slow
def test_a_training_killed_by_the_command_line_goes_on_and_makes_the_same_head(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 22)

    def command(out: Path) -> list[str]:
        options = [
            "--backbone",
            "lite0",
            "--views-per-image",
            "2",
            "--epochs",
            "25",
            "--checkpoint-seconds",
            "0",
            "--json",
        ]
        return [
            sys.executable, "-m", "training", "train-head", "--images", str(images), "--out",
            str(out / "head.safetensors"), *options, "--cache", str(tmp_path / "cache"),
        ]  # fmt: skip

    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name in ("killed", "straight"):
        (tmp_path / name).mkdir()
    with subprocess.Popen(
        command(tmp_path / "killed"), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        checkpoint = tmp_path / "killed" / ".head.work" / "checkpoint.safetensors"
        while not checkpoint.exists():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
                pytest.fail("the training ended before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed" / "head.safetensors").exists()
    done = [
        json.loads(
            subprocess.run(
                command(tmp_path / name), cwd=ROOT, env=environment, capture_output=True, check=True
            ).stdout
        )
        for name in ("killed", "straight")
    ]
    assert done[0]["resumed_at"] >= 1
    assert done[1]["resumed_at"] == 0
    first, second = ((tmp_path / name / "head.safetensors").read_bytes() for name in ("killed", "straight"))
    assert first == second
