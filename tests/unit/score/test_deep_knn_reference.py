"""Deep kNN's score written again from science.md section 1 in plain numpy, against what the node computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicom_node.score import knn
from dicom_node.score.bank import load_bank, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.head import Head
from dicom_node.score.scoring import Scorer
from dicom_node.score.view_names import DEFAULT_VIEWS
from tests.unit.score.builders import bank_facts, small_backbone

RNG = np.random.default_rng(0)
D = 24
HEAD = Head(
    (
        ("adaptor", RNG.normal(size=(12, D)).astype(np.float32), RNG.normal(size=12).astype(np.float32)),
        ("predictor", RNG.normal(size=(12, 12)).astype(np.float32), RNG.normal(size=12).astype(np.float32)),
    )
)


def p_hat(features: np.ndarray) -> np.ndarray:
    """Return p / |p| with z = W1 f + b1, p = W2 z + b2."""
    (_, w1, b1), (_, w2, b2) = HEAD.layers
    f = features.astype(np.float64)
    p = (f @ w1.T.astype(float) + b1) @ w2.T.astype(float) + b2
    return p / np.linalg.norm(p, axis=-1, keepdims=True)


def reference(normals: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Return s(x) of (Q, A, D) queries against (N, A, D) normals: all views of all normals are one set."""
    bank = p_hat(normals).reshape(-1, 12)
    scores = []
    for image in p_hat(queries):
        product = 1.0
        for view in image:
            product *= sorted(float(((view - b) ** 2).sum()) for b in bank)[k - 1]
        scores.append(product ** (1 / len(image)))
    return np.array(scores)


@pytest.mark.parametrize("k", [1, 2, 5, 10, 20])
@pytest.mark.parametrize("views", [1, 2, 5, 10])
def test_the_nodes_score_is_the_papers_for_any_k_and_number_of_views(
    k: int, views: int, tmp_path: Path
) -> None:
    normals = RNG.normal(size=(30, views, D)).astype(np.float32)
    queries = RNG.normal(size=(9, views, D)).astype(np.float32)
    backbone = small_backbone()
    facts = bank_facts(views=DEFAULT_VIEWS[:views], k=k)
    facts["backbone"] |= {"weights_sha256": backbone.weights_sha256}
    write_bank(
        tmp_path / "bank",
        vectors=HEAD.apply(normals.reshape(-1, D)),
        head=HEAD,
        calibration=Calibration.of([0.1, 0.2]),
        images=[str(number) for number in range(30)],
        facts=facts,
    )
    scorer = Scorer(load_bank(tmp_path / "bank"), backbone)
    ours = np.array([score.value for score in scorer.score_features(queries)])
    assert np.abs(ours - reference(normals, queries, k)).max() < 1e-5


def test_squared_distance_of_unit_vectors_is_two_minus_two_cosines() -> None:
    a, b = p_hat(RNG.normal(size=(50, D))), p_hat(RNG.normal(size=(50, D)))
    assert np.abs(((a - b) ** 2).sum(1) - (2 - 2 * (a * b).sum(1))).max() < 1e-12


def test_the_geometric_mean_neither_under_nor_overflows() -> None:
    assert np.isclose(knn.geometric_mean(np.full(1000, 1e-5)), 1e-5)
    assert np.isclose(knn.geometric_mean(np.full(1000, 4.0)), 4.0)
    values = RNG.uniform(0.01, 2.0, size=(7, 5))
    assert np.allclose(knn.geometric_mean(values), values.prod(axis=1) ** (1 / 5))


def test_one_duplicated_view_lowers_the_score_by_its_root_only() -> None:
    distances = np.full(10, 0.2)
    with_duplicate = distances.copy()
    with_duplicate[3] = 0.0
    factor = knn.geometric_mean(distances) / knn.geometric_mean(with_duplicate)
    assert np.isclose(factor, (0.2 / knn.FLOOR) ** 0.1)
    assert np.isclose(factor, 3.389, atol=1e-3)
    assert np.isclose(knn.geometric_mean(np.zeros(10)), knn.FLOOR)
