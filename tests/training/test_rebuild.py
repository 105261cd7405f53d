from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import load_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.head import Head
from dicom_node.score.manifest import Population, Preprocessing
from tests.training.test_build import AT, ROOT, built, environment, order, pictures
from training.embed import SHARD
from training.rebuild import VERDICT, Rebuild, Verdict, hold_out, rebuild
from training.recipe import REBUILD_INPUT, REBUILD_SOURCE, REBUILT_FROM, order_like
from training.splits import describe


def rebuilt(active: Path, images: Path, **changes: object) -> Verdict:
    return rebuild(
        Rebuild(active, images, **changes),  # type: ignore[arg-type]
        created_at=AT,
        started=lambda _: None,
        progress=lambda _: None,
    )


@pytest.fixture
def active(tmp_path: Path) -> Path:
    """Return the folder of a bank of 30 pictures, calibrated on 10 others."""
    built(order(pictures(tmp_path / "in", 40), tmp_path / "banks", name="chest", calibration=0.25, seed=3))
    return tmp_path / "banks" / "chest"


def test_a_rebuild_repeats_the_recipe_on_other_normals_and_judges(active: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "in", 60, first=40)
    verdict = rebuilt(active, tmp_path / "in", source="archive pacs")
    assert (verdict.state, verdict.bank, verdict.active) == ("not worse", "chest-r1", "chest")
    old, new = load_bank(active), load_bank(active.parent / "chest-r1")
    assert (verdict.bank_hash, verdict.active_hash) == (new.bank_hash, old.bank_hash)
    for name in ("views", "k", "preprocessing", "backbone", "population", "false_positive_rate", "calibration"):
        assert getattr(new.manifest, name) == getattr(old.manifest, name)
    repeated = {key: value for key, value in new.manifest.recipe.items() if not key.startswith("rebu")}
    assert repeated == old.manifest.recipe
    assert new.manifest.recipe[REBUILT_FROM] == old.bank_hash
    assert new.manifest.recipe[REBUILD_SOURCE] == "archive pacs"
    assert verdict.new is not None
    assert verdict.old is not None
    assert verdict.new.images == verdict.old.images == 20
    assert new.manifest.normal_images == 60
    assert json.loads((active.parent / "chest-r1" / VERDICT).read_bytes())["state"] == "not worse"
    assert sorted(path.name for path in active.parent.iterdir()) == ["chest", "chest-r1"]


def test_held_out_images_are_in_neither_bank_and_are_held_out_again(active: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 60, first=40)
    known = set(load_bank(active).images)
    held, rest = hold_out(describe(folder, 3), known, 0.15)
    ids = {one.file_id for one in held}
    assert len(ids) == 20
    assert not ids & known
    assert not ids & {one.file_id for one in rest}
    rebuilt(active, folder)
    assert not ids & set(load_bank(active.parent / "chest-r1").images)
    pictures(folder, 5, first=100)
    again, _ = hold_out(describe(folder, 3), set(load_bank(active.parent / "chest-r1").images), 0.15)
    assert len(ids & {one.file_id for one in again}) >= 15


def test_the_same_files_are_not_built_twice(active: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 60, first=40)
    first = rebuilt(active, folder)
    assert rebuilt(active, folder) == first
    assert BankStore(active.parent).names() == ("chest", "chest-r1")
    assert rebuilt(active.parent / "chest-r1", folder).state == "unchanged"
    pictures(folder, 1, first=100)
    assert rebuilt(active.parent / "chest-r1", folder).bank == "chest-r2"


def test_normals_of_another_kind_make_a_bank_that_is_not_worse_for_them(active: Path, tmp_path: Path) -> None:
    shrunken = pictures(tmp_path / "few", 50, first=200)
    verdict = rebuilt(active, shrunken)
    assert verdict.state == "not worse"
    assert verdict.new is not None
    assert verdict.new.bank_images < 30


def test_a_much_smaller_bank_is_worse(tmp_path: Path) -> None:
    built(order(pictures(tmp_path / "in", 120), tmp_path / "banks", name="chest", calibration="leave-one-out"))
    verdict = rebuilt(tmp_path / "banks" / "chest", pictures(tmp_path / "few", 60, first=200))
    assert verdict.state == "worse"
    assert verdict.reasons == ["it holds 40 normals, the active bank 120"]


def test_labelled_images_compare_the_ranking_of_both_banks(active: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 60, first=40)
    pictures(tmp_path / "labelled", 12, first=500)
    with (tmp_path / "labelled.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label"])
        table.writerows([f"labelled/p{500 + n:04d}.png", n % 2] for n in range(12))
        table.writerow(["in/p0001.png", "1"])
    verdict = rebuilt(active, folder, labelled=tmp_path / "labelled.csv")
    assert verdict.labelled is not None
    assert (verdict.labelled.normal, verdict.labelled.abnormal) == (6, 6)
    assert 0.0 <= verdict.labelled.new_auroc <= 1.0


def test_a_recipe_that_cannot_be_repeated_is_refused(active: Path, tmp_path: Path) -> None:
    others = pictures(tmp_path / "others", 12, first=60)
    built(order(tmp_path / "in", active.parent, name="apart", calibration_images=others))
    bank = load_bank(active.parent / "apart")
    with pytest.raises(BankError, match="name one with --calibration-images"):
        order_like(bank, active.parent / "apart", images=others, name="x", calibration_images=None)
    odd = built(order(tmp_path / "in", active.parent, name="odd", origin={"moon": "full"}))
    with pytest.raises(BankError, match="built with moon, which no rebuild repeats"):
        order_like(load_bank(Path(odd.path)), Path(odd.path), images=others, name="x", calibration_images=None)


def test_an_order_read_back_is_the_order_given(tmp_path: Path) -> None:
    given = order(
        pictures(tmp_path / "in", 40), tmp_path / "banks", name="one", k=2, seed=7, calibration=9.0,
        false_positive_rate=0.1, drop_outliers=0.1, keep_duplicates=True,
        population=Population(views=("PA",), institutions=("HERE",)), preprocessing=Preprocessing(size=64),
        views=("squash", "centre"),
    )  # fmt: skip
    built(given)
    bank = load_bank(tmp_path / "banks" / "one")
    read = order_like(
        bank, tmp_path / "banks" / "one", images=given.images, name="one", calibration_images=None
    )
    for name in given.__dataclass_fields__:
        if not name.startswith("weights"):
            assert getattr(read, name) == getattr(given, name), name


def when(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait until something is there, and fail if the process ends before."""
    until = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, "the rebuild ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("stage", ["embedding", "judging"])
def test_a_rebuild_that_was_killed_goes_on_and_ends_the_same(stage: str, active: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 2 * SHARD + 20, first=40)
    banks = active.parent
    command = [
        sys.executable,
        "-m",
        "training",
        "rebuild",
        "--like",
        str(active),
        "--images",
        str(folder),
        "--json",
    ]
    ready = {
        "embedding": lambda: bool(list((banks / ".chest-r1.work").glob("*.safetensors"))),
        "judging": lambda: (banks / "chest-r1" / "manifest.json").exists(),
    }[stage]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE) as process:
        when(ready, process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert BankStore(banks).names() == (("chest",) if stage == "embedding" else ("chest", "chest-r1"))
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=True)
    verdict = json.loads(done.stdout)
    assert (verdict["state"], verdict["bank"]) == ("not worse", "chest-r1")
    assert load_bank(banks / "chest-r1").manifest.recipe[REBUILD_INPUT]
    assert sorted(path.name for path in banks.iterdir()) == ["chest", "chest-r1"]


def test_the_head_of_the_bank_is_used_as_it_is(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 1280)).astype(np.float32)
    head = Head((("adaptor", weight, np.zeros(8, dtype=np.float32)),))
    built(order(pictures(tmp_path / "in", 40), tmp_path / "banks", name="chest", calibration=0.25, head=head))
    verdict = rebuilt(tmp_path / "banks" / "chest", pictures(tmp_path / "in", 60, first=40))
    files = [tmp_path / "banks" / name / "head.safetensors" for name in ("chest", verdict.bank)]
    assert files[0] != files[1]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert load_bank(files[1].parent).manifest.head == "linear 1280-8"


def listed(path: Path, rows: Sequence[tuple[Path, str]], label: bool = False) -> Path:
    """Write a CSV of files and patients; with a label, 0 and 1 by turns."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "patient_id", *(["label"] if label else [])])
        table.writerows([str(one), who, *([n % 2] if label else [])] for n, (one, who) in enumerate(rows))
    return path


def patients(folder: Path, first: int) -> list[tuple[Path, str]]:
    """Return the files of a folder, each of another patient, counted from `first`."""
    return [(path, f"P{at}") for at, path in enumerate(sorted(folder.iterdir()), first)]


def test_no_patient_of_the_normals_calibrates_a_rebuilt_bank_or_judges_it(tmp_path: Path) -> None:
    banks, normals = tmp_path / "banks", patients(pictures(tmp_path / "in", 60), 0)
    others = patients(pictures(tmp_path / "others", 12, first=300), 50)  # the first ten are among the normals
    calibrating = listed(tmp_path / "calibrating.csv", others + patients(pictures(tmp_path / "x", 6, 400), 90))
    first = built(
        order(listed(tmp_path / "old.csv", normals[:50]), banks, name="chest", calibration_images=calibrating)
    )
    assert first.calibration_images == 18
    labelled = patients(pictures(tmp_path / "labelled", 14, first=500), 54)  # six of them are among the normals
    verdict = rebuilt(
        banks / "chest",
        listed(tmp_path / "new.csv", normals),
        calibration_images=calibrating,
        labelled=listed(tmp_path / "labelled.csv", labelled, label=True),
    )
    assert load_bank(banks / verdict.bank).manifest.calibration_images == 8
    assert verdict.labelled is not None
    assert (verdict.labelled.normal, verdict.labelled.abnormal) == (3, 3)


def test_the_same_normals_with_another_calibration_set_are_another_bank(tmp_path: Path) -> None:
    banks, folder = tmp_path / "banks", pictures(tmp_path / "in", 60)
    one, two = pictures(tmp_path / "one", 12, first=300), pictures(tmp_path / "two", 20, first=400)
    built(order(folder, banks, name="chest", calibration_images=one))
    pictures(folder, 60, first=60)
    assert rebuilt(banks / "chest", folder, calibration_images=one).bank == "chest-r1"
    assert rebuilt(banks / "chest-r1", folder, calibration_images=one).state == "unchanged"
    assert rebuilt(banks / "chest-r1", folder, calibration_images=two).bank == "chest-r2"
    assert load_bank(banks / "chest-r2").manifest.calibration_images == 20
