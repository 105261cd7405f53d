"""Which images a build takes: outliers, splits, populations, rules."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.bank import load_bank
from dicom_node.score.manifest import Population, Preprocessing
from tests.training.test_build import built, dicom, order, pictures
from training.build import Summary
from training.phantoms import Lesion, make
from training.phantoms_cli import grey8


def planted(folder: Path, normal: int, strange: int) -> Path:
    """Write phantoms; those named z have a consolidation."""
    folder.mkdir()
    for seed in range(normal + strange):
        lesion: Lesion | None = "opacity" if seed >= normal else None
        phantom = make(seed, lesion=lesion, shape=(128, 105), strength=2.0)
        Image.fromarray(grey8(phantom)).save(folder / f"{'z' if lesion else 'p'}{seed}.png")
    return folder


def review_of(summary: Summary) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(summary.review).read_text().splitlines()))


def test_planted_abnormal_phantoms_head_the_review_and_can_be_left_out(tmp_path: Path) -> None:
    folder = planted(tmp_path / "in", 37, 3)
    options: dict[str, Any] = {
        "backbone": "lite0", "views": ("squash",), "preprocessing": Preprocessing(),
        "calibration": "leave-one-out",
    }  # fmt: skip
    kept = built(order(folder, tmp_path / "out", name="all", **options))
    table = review_of(kept)
    assert {Path(row["path"]).name for row in table[:3]} == {"z37.png", "z38.png", "z39.png"}
    assert [row["flagged"] for row in table[:3]] == ["yes"] * 3
    assert (kept.flagged >= 3, kept.dropped, kept.normal_images) == (True, 0, 40)
    strange = {row["image"] for row in table[:3]}
    clean = built(order(folder, tmp_path / "out", name="clean", drop_outliers=0.075, **options))
    assert (clean.dropped, clean.normal_images, clean.calibration_images) == (3, 37, 40)
    bank = load_bank(tmp_path / "out" / "clean")
    assert not strange & set(bank.images)
    assert bank.manifest.recipe["drop_outliers"] == 0.075
    assert bank.manifest.recipe["dropped_images"] == 3
    assert [row["dropped"] for row in review_of(clean)[:4]] == ["yes"] * 3 + ["no"]


def test_a_manifest_says_who_stands_in_the_bank_who_calibrates_and_who_is_kept_for_a_test(
    tmp_path: Path,
) -> None:
    folder = pictures(tmp_path / "in", 40)
    with (tmp_path / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "patient_id", "split"])
        for seed in range(40):
            split = ("bank", "calibration", "test")[0 if seed < 24 else 1 if seed < 32 else 2]
            rows.writerow([f"in/p{seed:04d}.png", f"patient-{seed // 2}", split])
    summary = built(order(tmp_path / "list.csv", tmp_path / "out"))
    assert (summary.normal_images, summary.calibration_images, summary.kept_for_test) == (24, 8, 8)
    assert (summary.calibration, summary.shared_with_bank) == ("held-out", 0)
    with pytest.raises(BankError, match="leave --calibration-images out"):
        built(order(tmp_path / "list.csv", tmp_path / "out", name="two", calibration_images=folder))


def test_what_contradicts_the_population_is_left_out_and_what_says_nothing_is_not(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "in", 24)
    for seed, attributes in enumerate(
        [
            {"PatientAge": "045Y", "ViewPosition": "PA", "InstitutionName": "St. Anna"},
            {"PatientAge": "012Y", "ViewPosition": "PA"},
            {"PatientAge": "045Y", "ViewPosition": "AP"},
            {"PatientAge": "045Y", "ViewPosition": "PA", "InstitutionName": "elsewhere"},
        ],
        start=100,
    ):
        dicom(folder / f"d{seed}.dcm", seed, **attributes)
    people = Population(views=("PA",), minimum_age=18, institutions=("ST. ANNA",))
    summary = built(order(folder, tmp_path / "out", population=people, calibration="leave-one-out"))
    assert summary.normal_images == 25
    reasons = dict(summary.skipped)
    assert sorted(reasons) == ["d101.dcm", "d102.dcm", "d103.dcm"]
    assert reasons["d101.dcm"] == "population: its age is not that of the bank's population"
    assert [reasons[f"d{n}.dcm"].split()[2] for n in (102, 103)] == ["view", "institution"]
    assert load_bank(tmp_path / "out" / "normals").manifest.population == people


def test_the_rules_are_recorded_where_they_differ_from_the_default(tmp_path: Path) -> None:
    rules = Eligibility(view_positions=("LL",))
    built(order(pictures(tmp_path / "in", 26), tmp_path / "out", rules=rules))
    recipe = load_bank(tmp_path / "out" / "normals").manifest.recipe
    assert Eligibility.model_validate_json(str(recipe["rules"])) == rules
