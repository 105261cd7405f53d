from __future__ import annotations

import csv
import io
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
from PIL import Image
from pydicom.dataset import Dataset

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import load_backbone
from dicom_node.score.bank import load_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.files import read_image
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.normal_pictures import FILE as NORMALS
from dicom_node.score.normal_pictures import NormalPictures
from dicom_node.score.scoring import Scorer
from dicom_node.score.views import make_views
from tests.unit.score.builders import image
from training.build import Order, Summary, build
from training.embed import SHARD
from training.recipe import order_like

SMALL = Preprocessing(size=64, resize_short=72)
ROOT = Path(__file__).resolve().parents[2]
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def values(seed: int) -> np.ndarray:
    """Return smooth random blobs, (140, 140) uint16 of 12 bits."""
    coarse = np.random.default_rng(seed).random((9, 7), dtype=np.float32)
    return np.rint(make_views(coarse, ("squash",), 140, 140)[0] * 4095).astype(np.uint16)


def pictures(folder: Path, count: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first, first + count):
        Image.fromarray((values(seed) >> 4).astype(np.uint8)).save(folder / f"p{seed:04d}.png")
    return folder


def dicom(path: Path, seed: int, **attributes: Any) -> Dataset:
    ds = image(values(seed), stored=12, SOPInstanceUID=f"1.2.{seed + 1}", **attributes)
    ds.save_as(path, enforce_file_format=True)
    return ds


def built(order: Order) -> Summary:
    return build(order, created_at=AT, started=lambda _: None, progress=lambda _: None)


def order(images: Path, out: Path, **changes: Any) -> Order:
    options: dict[str, Any] = {
        "backbone": "lite0-random", "views": ("squash", "squash-flip"), "preprocessing": SMALL,
    }  # fmt: skip
    return Order(images=images, out=out, **(options | changes))


def test_a_built_bank_loads_and_held_out_normals_are_not_in_it(tmp_path: Path) -> None:
    summary = built(order(pictures(tmp_path / "in", 40), tmp_path / "out", calibration=0.25))
    assert (summary.normal_images, summary.calibration_images, summary.patients) == (30, 10, 30)
    assert BankStore(tmp_path / "out").names() == ("normals",)
    bank = load_bank(tmp_path / "out" / "normals")
    assert bank.bank_hash == summary.bank_hash
    assert bank.manifest.calibration == "held-out"
    scorer = Scorer(bank, load_backbone("lite0-random"))
    greys = [read_image(path)[0] for path in sorted((tmp_path / "in").iterdir())]
    scores = np.array([score.value for score in scorer.score_images(greys)])
    held = np.sort(scores)[30:]
    assert np.allclose(held, bank.calibration.scores, rtol=1e-3)
    assert (np.sort(scores)[:30] < 2e-6).all()


def test_the_same_images_give_the_same_bank(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 30)
    one, two = (built(order(images, tmp_path / out)) for out in ("a", "b"))
    assert one.bank_hash == two.bank_hash
    assert built(order(images, tmp_path / "c", seed=1)).bank_hash != one.bank_hash


def test_a_patient_stands_on_one_side_only(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for seed in range(60):
        dicom(tmp_path / "in" / f"{seed:02d}.dcm", seed, PatientID=f"P{seed % 20}", ViewPosition="PA")
    summary = built(order(tmp_path / "in", tmp_path / "out", calibration=0.3))
    assert summary.patients == summary.normal_images / 3
    assert summary.normal_images + summary.calibration_images == 60
    manifest = load_bank(tmp_path / "out" / "normals").manifest
    assert manifest.seen == {"modality": {"CR": summary.normal_images}, "view": {"PA": summary.normal_images}}
    for file in (tmp_path / "out" / "normals").iterdir():
        assert b"P1" not in file.read_bytes() or file.suffix in (".faiss", ".safetensors")


def test_images_without_use_are_listed_with_their_reasons_and_duplicates_counted(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 26)
    Image.open(folder / "p0000.png").save(folder / "copy.png", optimize=True, compress_level=1)
    (folder / "broken.png").write_bytes((folder / "p0001.png").read_bytes()[:100])
    (folder / "text.dcm").write_text("no image")
    (folder / "notes.txt").write_text("not looked at")
    dicom(folder / "hand.dcm", 90, BodyPartExamined="HAND")
    summary = built(order(folder, tmp_path / "out"))
    assert summary.duplicates == 1
    assert summary.normal_images + summary.calibration_images == 26
    reasons = {name: reason.split(":")[0] for name, reason in summary.skipped}
    assert reasons == {"broken.png": "decode", "text.dcm": "unreadable", "hand.dcm": "body_part"}


def test_duplicates_can_be_kept(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 26)
    (folder / "copy.png").write_bytes((folder / "p0000.png").read_bytes())
    summary = built(order(folder, tmp_path / "out", calibration="leave-one-out", keep_duplicates=True))
    assert (summary.duplicates, summary.normal_images) == (0, 27)


def test_leave_one_out_puts_every_image_in_the_bank_and_leaves_its_patient_out(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 24)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "patient_id"])
        rows.writerows([f"in/p{seed:04d}.png", f"patient-{seed // 2}"] for seed in range(24))
    summary = built(order(tmp_path / "list.csv", tmp_path / "out", calibration="leave-one-out", k=2))
    assert (summary.normal_images, summary.calibration_images, summary.patients) == (24, 24, 12)
    bank = load_bank(tmp_path / "out" / "normals")
    vectors = bank.index.reconstruct_batch(np.arange(48)).astype(float)
    squared = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    owner = np.arange(48) // 4
    squared[owner[:, None] == owner[None]] = np.inf
    second = np.sort(squared, axis=1)[:, 1].reshape(24, 2)
    assert np.allclose(np.sort(np.sqrt(second.prod(axis=1))), bank.calibration.scores, rtol=1e-4)
    assert folder.is_dir()


def test_a_separate_calibration_set_leaves_all_images_in_the_bank(
    tmp_path: Path,
) -> None:
    folder = pictures(tmp_path / "in", 25)
    others = pictures(tmp_path / "other", 12, first=23)
    summary = built(order(folder, tmp_path / "out", calibration_images=others))
    assert (summary.normal_images, summary.calibration_images, summary.shared_with_bank) == (25, 10, 2)
    assert summary.calibration == "separate"


def test_too_few_normals_are_an_error_and_few_a_warning(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="19 usable normals out of 19 files; at least 20"):
        built(order(pictures(tmp_path / "few", 19), tmp_path / "out"))
    assert BankStore(tmp_path / "out").names() == ()
    summary = built(order(pictures(tmp_path / "more", 30), tmp_path / "out"))
    assert any("rough below 200" in warning for warning in summary.warnings)
    assert any("admits every eligible image" in warning for warning in summary.warnings)


def test_an_existing_bank_is_not_built_again(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 25)
    built(order(images, tmp_path / "out"))
    with pytest.raises(BankError, match="exists"):
        built(order(images, tmp_path / "out"))


def test_the_work_folder_with_its_key_is_gone_after_a_build(tmp_path: Path) -> None:
    built(order(pictures(tmp_path / "in", 25), tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["normals"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "training", "build", *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def test_a_build_that_was_killed_goes_on_and_makes_the_same_bank(tmp_path: Path) -> None:
    images = pictures(tmp_path / "in", 2 * SHARD + 5)
    options = ["--images", images, "--backbone", "lite0-random", "--views", "squash", "--json"]
    with subprocess.Popen(
        command(*options, "--out", tmp_path / "out"), cwd=ROOT, env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        work = tmp_path / "out" / ".normals.work"
        while not list(work.glob("*.safetensors")):
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
                pytest.fail("the build ended before it could be killed")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert BankStore(tmp_path / "out").names() == ()
    again = subprocess.run(
        command(*options, "--out", tmp_path / "out"),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        check=True,
    )
    summary = json.loads(again.stdout)
    assert summary["reused"] >= SHARD
    straight = built(order(images, tmp_path / "straight", views=("squash",), preprocessing=Preprocessing()))
    resumed, whole = load_bank(tmp_path / "out" / "normals"), load_bank(tmp_path / "straight" / "normals")
    assert resumed.images == whole.images
    rows = np.arange(whole.index.ntotal)
    assert np.allclose(resumed.index.reconstruct_batch(rows), whole.index.reconstruct_batch(rows), atol=1e-6)
    assert np.allclose(resumed.calibration.scores, whole.calibration.scores, atol=1e-6)
    assert straight.normal_images == summary["normal_images"]


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--views", "left"], "name each once"),
        (["--calibration", "1.5"], "--calibration is 1.5"),
        (["--fpr", "1"], "--fpr is 1"),
    ],
)
def test_options_that_cannot_be_used_end_with_2(options: list[str], seen: str, tmp_path: Path) -> None:
    done = subprocess.run(
        command("--images", tmp_path, "--out", tmp_path / "out", *options), cwd=ROOT, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert seen in done.stderr


def test_work_that_fails_ends_with_1_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--images", tmp_path, "--out", tmp_path / "out"), cwd=ROOT, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "holds no DICOM, PNG or JPEG file" in done.stderr


def test_a_bank_carries_pictures_of_its_normals_where_it_is_told_to_and_is_verified_with_them(
    tmp_path: Path,
) -> None:
    images = pictures(tmp_path / "in", 25)
    built(order(images, tmp_path / "banks", name="plain"))
    built(order(images, tmp_path / "banks", name="shown", thumbnails=True))
    assert NORMALS not in load_bank(tmp_path / "banks" / "plain").manifest.files
    bank, shown = load_bank(tmp_path / "banks" / "shown"), NormalPictures(tmp_path / "banks")
    assert shown.among("shown", bank.images) == set(bank.images)
    assert shown.among("plain", bank.images) == set()
    content = shown.picture("shown", bank.images[0])
    assert content is not None
    assert Image.open(io.BytesIO(content)).size == (140, 140)
    repeated = order_like(
        bank, tmp_path / "banks" / "shown", images=images, name="again", calibration_images=None
    )
    assert isinstance(repeated, Order)
    assert repeated.thumbnails
    place = tmp_path / "banks" / "shown" / NORMALS
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    with pytest.raises(BankError, match=NORMALS):
        load_bank(tmp_path / "banks" / "shown")
