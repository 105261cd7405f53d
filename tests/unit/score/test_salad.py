"""SALAD's score against hand-made cases and an independent numpy reference; its bank against damage."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import load_bank
from dicom_node.score.bank_store import BankStore
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest, Preprocessing
from dicom_node.score.salad import ALGORITHM, ALGORITHM_WEIGHTED, SaladScorer, anomaly_scores, encode
from dicom_node.score.salad_bank import FILES, load_salad_bank, write_salad_bank
from dicom_node.score.salad_facts import SaladFacts
from dicom_node.score.salad_network import SaladEncoder
from dicom_node.score.scoring import Scorer, load_scorer
from dicom_node.score.views import make_views
from tests.unit.score.builders import bank_facts, unit

PREP = Preprocessing(size=32, resize_short=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def encoder(seed: int = 0) -> SaladEncoder:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SaladEncoder(32, 4, 12).eval()


def write(
    folder: Path, *, rows: int = 30, memory: Any = None, weighting: str = "mean", **changes: Any
) -> Manifest:
    rng = np.random.default_rng(7)
    facts = bank_facts(
        preprocessing=PREP,
        k=20,
        salad=SaladFacts(
            channels=4, weighting=weighting, tau=0.1, rounds=10, epochs=50, seed=0, reconstruction="l1"
        ),
    )  # fmt: skip
    return write_salad_bank(
        folder,
        encoder=encoder(),
        memory=unit(rng.normal(size=(rows, 12))) if memory is None else memory,
        calibration=Calibration.of(rng.uniform(0.3, 0.5, size=20)),
        images=[f"image-{row}" for row in range(rows)],
        facts=facts | changes,
    )


def grey(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random((40, 33), dtype=np.float32)


def reference(z: npt.ArrayLike, memory: npt.ArrayLike, k: int, tau: float | None = None) -> list[float]:
    """Score from the formula alone: every angle, the k smallest, their mean or weighted mean."""
    out = []
    for vector in np.asarray(z, dtype=np.float64):
        cosines = [min(1.0, max(-1.0, float(np.dot(vector, row)))) for row in np.asarray(memory, np.float64)]
        nearest = sorted(cosines, reverse=True)[:k]
        weights = [1.0 if tau is None else math.exp(c / tau) for c in nearest]
        angles = [math.acos(c) / math.pi for c in nearest]
        out.append(sum(w * a for w, a in zip(weights, angles, strict=True)) / sum(weights))
    return out


def test_the_score_is_the_mean_angle_as_a_share_of_pi() -> None:
    memory = np.eye(4, dtype=np.float32)
    z = np.array([[1, 0, 0, 0], [-1, 0, 0, 0], [math.sqrt(0.5), math.sqrt(0.5), 0, 0]], dtype=np.float32)
    scores, rows = anomaly_scores(z, memory, k=2)
    assert scores == pytest.approx([0.25, 0.5, 0.25], abs=1e-4)
    assert rows.tolist() == [[0, 1], [1, 2], [0, 1]]
    opposite, _ = anomaly_scores(-memory[:1], memory[:1], k=1)
    assert opposite == [1.0]


def test_a_cosine_that_rounding_pushed_beyond_one_is_clamped() -> None:
    long = np.array([[1.0000001, 0.0]], dtype=np.float32)
    scores, _ = anomaly_scores(np.concatenate([long, -long]), long, k=1)
    assert scores.tolist() == [0.0, 1.0]


@pytest.mark.parametrize("k", [1, 7, 100])
def test_an_independent_reference_agrees(k: int) -> None:
    rng = np.random.default_rng(k)
    z, memory = unit(rng.normal(size=(9, 200))), unit(rng.normal(size=(150, 200)) + 0.2)
    for weighting, tau in (("mean", None), ("weighted", 0.1)):
        scores, rows = anomaly_scores(z, memory, k, weighting)  # type: ignore[arg-type]
        assert scores == pytest.approx(reference(z, memory, k, tau), abs=1e-5)
        assert rows.shape == (9, k)


def test_weights_follow_the_softmax_of_the_cosines_and_pull_the_score_down() -> None:
    memory = np.array([[1, 0], [0, 1]], dtype=np.float32)
    (weighted,), _ = anomaly_scores(memory[:1], memory, 2, "weighted", tau=0.5)
    share = math.exp(0) / (math.exp(2) + math.exp(0))
    assert weighted == pytest.approx(share * 0.5)
    (mean,), _ = anomaly_scores(memory[:1], memory, 2)
    assert weighted < mean == 0.25


@pytest.mark.parametrize("k", [0, 5])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    with pytest.raises(BankError, match="the memory has 4 rows"):
        anomaly_scores(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), k)


def test_a_bank_comes_back_as_it_was_written_and_scores_as_the_reference(tmp_path: Path) -> None:
    manifest = write(tmp_path / "one")
    assert (manifest.kind, manifest.dim, manifest.vectors, manifest.normal_images) == ("salad", 12, 30, 30)
    scorer = load_scorer(tmp_path / "one")
    assert isinstance(scorer, SaladScorer)
    assert scorer.bank.bank_hash == manifest.bank_hash == BankStore(tmp_path).verify("one")
    images = [grey(seed) for seed in range(3)]
    scores = scorer.score_images(images)
    z = encode(scorer.bank.encoder, np.stack([make_views(i, ("squash",), 32, 32)[0] for i in images]), PREP)
    assert np.allclose(np.linalg.norm(z, axis=1), 1.0, atol=1e-6)
    assert [s.value for s in scores] == pytest.approx(reference(z, scorer.bank.memory, 20), abs=1e-5)
    assert scores == [scorer.score_images([image])[0] for image in images]
    assert scorer.score_images([]) == []
    calibration = scorer.bank.calibration.scores
    for score, vector in zip(scores, z, strict=True):
        assert score.percentile == 100 * np.mean(calibration < score.value)
        assert score.above == (score.value > manifest.threshold)
        nearest = np.argsort(-(scorer.bank.memory @ vector))[:5]
        assert score.neighbours == tuple(f"image-{row}" for row in nearest)


def test_provenance_names_the_method_its_k_and_its_encoder(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two", weighting="weighted")
    mean, weighted = (SaladScorer(load_salad_bank(tmp_path / n)).provenance() for n in ("one", "two"))
    assert (mean.algorithm, weighted.algorithm) == (ALGORITHM, ALGORITHM_WEIGHTED)
    assert (mean.k, mean.backbone, mean.views, mean.site) == (20, "salad-encoder", ("squash",), "here")
    assert mean.bank_hash != weighted.bank_hash


def test_a_salad_bank_has_no_heat_map_and_tells_which_banks_have(tmp_path: Path) -> None:
    write(tmp_path / "one")
    scorer = SaladScorer(load_salad_bank(tmp_path / "one"))
    assert not scorer.explains
    with pytest.raises(
        BankError, match="score has no places: a heat map needs a deep-knn bank with patches, or"
    ):
        scorer.explain(grey(0))


@pytest.mark.parametrize("file", FILES)
def test_one_changed_bit_in_any_file_stops_the_load_and_names_the_file(file: str, tmp_path: Path) -> None:
    write(tmp_path / "one")
    path = tmp_path / "one" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BankError, match=rf"{file} has SHA-256 [0-9a-f]{{64}}; the manifest says"):
        load_scorer(tmp_path / "one")
    with pytest.raises(BankError, match=file):
        BankStore(tmp_path).activate("one")


def test_a_bank_of_one_kind_is_not_taken_for_the_other(tmp_path: Path, make_bank: Any) -> None:
    make_bank("knn")
    write(tmp_path / "banks" / "salad")
    with pytest.raises(BankError, match="is of kind salad; deep-knn was asked for"):
        load_bank(tmp_path / "banks" / "salad")
    with pytest.raises(BankError, match="is of kind deep-knn; salad was asked for"):
        load_salad_bank(tmp_path / "banks" / "knn")


def test_parts_that_do_not_fit_make_no_bank(tmp_path: Path) -> None:
    with pytest.raises(BankError, match="unit length"):
        write(tmp_path / "one", memory=np.ones((30, 12), dtype=np.float32))
    with pytest.raises(BankError, match="30 vectors for 31 images"):
        write(tmp_path / "one", rows=31, memory=unit(np.ones((30, 12))))
    with pytest.raises(BankError, match="k is 31"):
        write(tmp_path / "one", k=31)
    with pytest.raises(BankError, match="kind is salad, and salad is missing"):
        write(tmp_path / "one", salad=None)
    assert not (tmp_path / "one").exists()


def test_a_manifest_from_before_there_were_kinds_keeps_its_hash() -> None:
    values = bank_facts(
        name="one", head="identity", files={"index.faiss": "1" * 64}, dim=24, vectors=12, normal_images=12,
        calibration_images=20, threshold=0.25,
    )  # fmt: skip
    manifest = Manifest.model_validate(values)
    assert manifest.kind == "deep-knn"
    assert manifest.bank_hash == "0da56daa5d51ac469e4d6ae3bb310605a0ecf51bb21c5aa1a43bd9036d8e9257"
    assert b"kind" not in manifest.to_json()


def test_deep_knn_banks_are_still_served_by_their_own_scorer(tmp_path: Path) -> None:
    from dicom_node.score.backbone import load_backbone
    from dicom_node.score.bank import write_bank
    from dicom_node.score.head import Head

    lite0 = load_backbone("lite0-random")
    facts = {"name": lite0.name, "dim": lite0.dim, "weights_sha256": lite0.weights_sha256}
    write_bank(
        tmp_path / "knn",
        vectors=unit(np.random.default_rng(0).normal(size=(12, lite0.dim))),
        head=Head(),
        calibration=Calibration.of(np.linspace(0.1, 0.2, 20)),
        images=[str(n) for n in range(12)],
        facts=bank_facts(backbone=facts | {"licence": "none", "training_data": "none"}),
    )
    assert isinstance(load_scorer(tmp_path / "knn"), Scorer)
