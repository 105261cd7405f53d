"""An aligned-knn bank from files to scores: the fit's formulas, what calibrates, and opacities that stand out."""

from __future__ import annotations

import csv
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from typer.testing import CliRunner

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.domain.types import Score
from dicom_node.score.aligned import AlignedScorer
from dicom_node.score.aligned_bank import load_aligned_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.files import read_image
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.scorer import Analyser
from dicom_node.score.scoring import load_scorer
from training.aligned_fit import choose, held_out, principal
from training.build_aligned import AlignedOrder, AlignedSummary, build_aligned
from training.cli import app
from training.model_card import NAME
from training.phantoms import make
from training.phantoms_cli import run as draw

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MEAN, STD = NORMALISATIONS["127"]
SMALL = Preprocessing(mean=MEAN, std=STD, size=96, resize_short=96)
SHAPE = (112, 92)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals") / "in"
    draw(folder, 40, form="png", shape=SHAPE)
    return folder


@pytest.fixture(scope="module")
def bank(normals: Path) -> tuple[Path, AlignedSummary]:
    out = normals.parent / "out"
    return out, built(normals, out)


def built(images: Path, out: Path, **changes: Any) -> AlignedSummary:
    options: dict[str, Any] = {"preprocessing": SMALL, "calibration": 10, "k": 3} | changes
    return build_aligned(
        AlignedOrder(images=images, out=out, **options),
        created_at=AT,
        started=lambda _: None,
        progress=lambda _: None,
    )


def file_id(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def low_rank(count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return vectors of 60 numbers that vary along 8 directions, and hardly along the others."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(60, 8)))[0].T * np.linspace(3, 1, 8)[:, None]
    own = np.random.default_rng(seed)
    return (own.normal(size=(count, 8)) @ directions + 0.1 * own.normal(size=(count, 60))).astype(np.float32)


def test_principal_components_are_those_of_the_covariance() -> None:
    vectors = low_rank(40, 1)
    found = principal(vectors, 6)
    values, own = np.linalg.eigh(np.cov(vectors.T.astype(np.float64), bias=True))
    assert found.variances[:6] == pytest.approx(values[::-1][:6], rel=1e-4)
    assert np.abs(np.sum(found.directions.T * own[:, ::-1][:, :6], axis=0)) == pytest.approx(
        np.ones(6), abs=1e-3
    )
    assert found.directions @ found.directions.T == pytest.approx(np.eye(6), abs=1e-4)


def test_the_likelihood_is_that_of_the_gaussian_and_finds_the_directions_there_are() -> None:
    vectors, held = low_rank(50, 1), low_rank(30, 2)
    count, likelihoods = choose(vectors, held)
    assert count == 8
    assert set(likelihoods) == {2, 4, 6, 8, 10, 15, 20, 40}
    mean = vectors.mean(axis=0).astype(np.float64)
    values, own = np.linalg.eigh(np.cov(vectors.T.astype(np.float64), bias=True))
    values, own = values[::-1].clip(0), own[:, ::-1]
    for q in (4, 8):
        variances = np.where(np.arange(60) < q, values, values[q:].sum() / (60 - q))
        covariance = own @ np.diag(variances) @ own.T
        each = [
            0.5 * (x - mean) @ np.linalg.solve(covariance, x - mean) + 0.5 * np.linalg.slogdet(covariance)[1]
            for x in held.astype(np.float64)
        ]
        assert likelihoods[q] == pytest.approx(np.mean(each), rel=1e-4)


def test_too_few_images_teach_no_subspace() -> None:
    with pytest.raises(BankError, match="3 images cannot teach 2 directions"):
        choose(low_rank(3, 1), low_rank(3, 2))
    with pytest.raises(BankError, match="1 patients"):
        held_out(["one", "one"], 0)


def test_the_directions_are_judged_by_patients_who_taught_none_of_them() -> None:
    patients = [f"p{number // 3}" for number in range(30)]
    held = held_out(patients, 0)
    assert held.sum() == 6
    assert len({p for p, h in zip(patients, held, strict=True) if h}) == 2
    assert held.tolist() == held_out(patients, 0).tolist() != held_out(patients, 1).tolist()


def test_an_opacity_lies_above_the_threshold_and_the_same_person_without_it_below(tmp_path: Path) -> None:
    draw(tmp_path / "in", 190, form="png", shape=SHAPE)
    built(tmp_path / "in", tmp_path / "out", calibration=30, false_positive_rate=0.2)
    sick = draw(tmp_path / "sick", 6, 500, "opacity", "png", SHAPE, strength=5.0)
    well = draw(tmp_path / "well", 6, 500, None, "png", SHAPE)
    BankStore(tmp_path / "out").activate("aligned")
    node = Analyser(tmp_path / "out", Eligibility(), kinds=("aligned-knn",), threads=1)

    def scores(files: list[Path]) -> list[Score]:
        return [score for path in files if (score := node.analyse_file(path).score) is not None]

    with_it, without = scores(sick), scores(well)
    assert (len(with_it), len(without)) == (6, 6)
    assert sum(score.above for score in with_it) >= 5
    assert sum(score.above for score in without) <= 1
    assert all(one.value > other.value for one, other in zip(with_it, without, strict=True))


def test_the_calibration_is_what_the_scorer_gives_to_images_that_were_held_out(
    bank: tuple[Path, AlignedSummary], normals: Path
) -> None:
    out, summary = bank
    assert (summary.normal_images, summary.calibration_images, summary.calibration) == (30, 10, "held-out")
    loaded = load_aligned_bank(out / "aligned")
    scorer = load_scorer(out / "aligned")
    assert isinstance(scorer, AlignedScorer)
    files = sorted(normals.glob("*.png"))
    inside = [path for path in files if file_id(path) in loaded.images]
    values = [scorer.score_images([read_image(path)[0]])[0].value for path in files if path not in inside]
    assert loaded.calibration.scores == pytest.approx(sorted(values), rel=1e-5)
    vector, _ = scorer.embed(read_image(inside[0])[0])
    assert np.array_equal(vector[0], loaded.vectors[loaded.images.index(file_id(inside[0]))])


def test_the_manifest_and_the_card_say_how_it_came_about(bank: tuple[Path, AlignedSummary]) -> None:
    out, summary = bank
    manifest = BankStore(out).manifest("aligned")
    assert (manifest.kind, manifest.k, manifest.dim) == ("aligned-knn", 3, summary.directions)
    assert manifest.aligned is not None
    assert (manifest.aligned.fitted_images, manifest.aligned.held_out_images, manifest.aligned.grid) == (
        30,
        6,
        6,
    )
    assert manifest.aligned.seed == manifest.recipe["seed"] == 0
    assert manifest.recipe["directions_tried"] == "2, 4, 6, 8, 10, 15, 20"
    card = (out / "aligned" / NAME).read_text("utf-8")
    assert f"in the {summary.directions} principal directions of 30 normals" in card
    assert not list(out.glob(".*.work"))


def test_the_same_order_makes_the_same_bank_and_another_seed_another(
    bank: tuple[Path, AlignedSummary], normals: Path, tmp_path: Path
) -> None:
    assert built(normals, tmp_path / "a").bank_hash == bank[1].bank_hash
    assert built(normals, tmp_path / "b", seed=1).bank_hash != bank[1].bank_hash


def test_images_of_one_patient_stand_on_one_side(normals: Path, tmp_path: Path) -> None:
    files = sorted(normals.glob("*.png"))
    with (tmp_path / "normals.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["path", "patient_id"])
        out.writerows([[path, f"patient-{at // 4}"] for at, path in enumerate(files)])
    summary = built(tmp_path / "normals.csv", tmp_path / "out", calibration=8)
    assert (summary.normal_images, summary.calibration_images, summary.patients) == (32, 8, 8)
    images = set(load_aligned_bank(tmp_path / "out" / "aligned").images)
    for at in range(0, 40, 4):
        assert sum(file_id(path) in images for path in files[at : at + 4]) in (0, 4)


def test_what_cannot_be_built_is_said(normals: Path, bank: tuple[Path, AlignedSummary], tmp_path: Path) -> None:
    with pytest.raises(BankError, match="bank aligned exists"):
        built(normals, bank[0])
    with pytest.raises(BankError, match="the maps are those of lite0"):
        built(normals, tmp_path, backbone="torchvision:resnet18")
    with pytest.raises(BankError, match="5 usable normals out of 40"):
        built(normals, tmp_path, calibration=35)


def test_the_command_builds_and_refuses(normals: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    options = ["build-aligned", "--images", str(normals), "--out", str(tmp_path)]
    refused = runner.invoke(app, [*options, "--calibration", "1.5"])
    assert refused.exit_code == 2
    assert "--calibration is 1.5" in refused.output
    done = runner.invoke(app, [*options, "--backbone", "lite0-random", "--calibration", "10", "--json"])
    assert done.exit_code == 0
    summary = json.loads(done.stdout)
    assert (summary["normal_images"], summary["k"]) == (30, 5)
    assert any("500 or more are sensible" in warning for warning in summary["warnings"])


def test_a_heat_map_tells_where_an_opacity_lies(bank: tuple[Path, AlignedSummary]) -> None:
    out, _ = bank
    scorer = load_scorer(out / "aligned")
    assert scorer.explains
    hits = 0
    for seed in range(9000, 9006):
        phantom = make(seed, lesion="opacity", shape=SHAPE)
        seen = scorer.explain(phantom.image)
        assert seen.heat.shape == SHAPE
        assert np.isnan(seen.heat[0]).all()
        away = distance_transform_edt(~phantom.mask) * phantom.spacing
        hits += bool(away[seen.peak] <= 20.0)
    assert hits >= 4


def test_a_picture_is_drawn_of_an_aligned_bank_and_names_its_method(
    bank: tuple[Path, AlignedSummary], tmp_path: Path
) -> None:
    out, _ = bank
    draw(tmp_path / "in", 1, seed=9000, lesion="opacity", form="png", shape=SHAPE)
    (file,) = (tmp_path / "in").glob("*.png")
    analyser = Analyser(out, Eligibility(), kinds=("aligned-knn",), threads=1)
    result, picture = analyser.explain_file(file, "aligned")
    assert result.score is not None
    assert picture.startswith(b"\x89PNG")
