from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from tests.unit.score.builders import unit
from training.contamination import Review, kept_rows, review, review_csv, robust_z, score_without_own
from training.dataset import Item


def cloud(count: int, spread: float, seed: int, views: int = 2, centre: int = 0) -> np.ndarray:
    """Return (count, views, 16) unit vectors about one axis; the views of an image lie close together."""
    rng = np.random.default_rng(seed)
    images = np.eye(16)[centre] + spread * rng.normal(size=(count, 1, 16))
    return unit(images + 0.2 * spread * rng.normal(size=(count, views, 16)))


def test_planted_strangers_come_first_even_where_they_resemble_each_other() -> None:
    strangers = cloud(4, 0.01, 1, centre=5)
    vectors = np.concatenate([cloud(60, 0.05, 0), strangers])
    found = review(vectors, [f"p{number}" for number in range(64)])
    assert sorted(found.farthest()[:4]) == [60, 61, 62, 63]
    assert np.flatnonzero(found.flagged).tolist() == [60, 61, 62, 63]


def test_the_images_of_ones_own_patient_do_not_vouch_for_one() -> None:
    vectors = np.concatenate([cloud(60, 0.05, 0), cloud(12, 0.01, 1, centre=5)])
    one_patient = [f"p{number}" for number in range(60)] + ["stranger"] * 12
    assert set(review(vectors, one_patient).farthest()[:12]) == set(range(60, 72))


def test_the_distance_is_the_score_of_the_formula() -> None:
    bank, queries = cloud(9, 0.3, 2), cloud(4, 0.3, 3)
    owners, own = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3]), np.array([0, 1, 9, 3])
    scores = score_without_own(bank, owners, queries, own, 3)
    for at, query in enumerate(queries):
        foreign = bank[owners != own[at]].reshape(-1, 16).astype(float)
        kth = [np.sort(((foreign - view.astype(float)) ** 2).sum(axis=1))[2] for view in query]
        assert scores[at] == pytest.approx(np.sqrt(kth[0] * kth[1]), rel=1e-6)


def test_a_large_bank_is_compared_with_a_sample_of_itself() -> None:
    vectors = np.concatenate([cloud(200, 0.05, 0), cloud(2, 0.01, 1, centre=5)])
    found = review(vectors, [f"p{number}" for number in range(202)], seed=1, most=80)
    assert len(found.distances) == 202
    assert sorted(found.farthest()[:2]) == [200, 201]


def test_one_patient_alone_gives_no_outlier() -> None:
    assert not review(cloud(20, 0.1, 0), ["p"] * 20).flagged.any()


def test_the_robust_z_score_is_that_of_the_median_and_its_deviation() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert robust_z(values).tolist() == pytest.approx([0.6745 * d for d in (-2.0, -1.0, 0.0, 1.0, 97.0)])
    mostly_equal = robust_z(np.array([1.0, 1.0, 1.0, 1.0, 2.0]))
    assert mostly_equal[4] == pytest.approx(1.0 / (1.2533 * 0.2))
    assert robust_z(np.ones(5)).tolist() == [0.0] * 5


def test_the_farthest_share_is_left_out() -> None:
    found = Review(np.array([3.0, 9.0, 1.0, 9.0, 5.0]), np.zeros(5))
    assert kept_rows(found, 0.0) == [0, 1, 2, 3, 4]
    assert kept_rows(found, 0.2) == [0, 2, 3, 4]
    assert kept_rows(found, 0.4) == [0, 2, 4]
    for fraction in (-0.1, 0.5, 1.0):
        with pytest.raises(BankError, match=r"below 0\.5"):
            kept_rows(found, fraction)


def test_the_review_names_image_and_file_and_says_what_was_dropped() -> None:
    distances = np.linspace(0.1, 0.2, 50)
    distances[7] = 2.0
    found = Review(distances, robust_z(distances))
    items = [Item(file_id=f"id-{number}") for number in range(50)]
    paths = [Path(f"/in/{number}.png") for number in range(50)]
    table = list(csv.DictReader(io.StringIO(review_csv(found, items, paths, [7]).decode())))
    assert len(table) == 20
    assert (table[0]["image"], table[0]["path"], table[0]["distance"]) == ("id-7", "/in/7.png", "2")
    assert [(row["flagged"], row["dropped"]) for row in table[:2]] == [("yes", "yes"), ("no", "no")]
