from __future__ import annotations

import faiss
import numpy as np
import pytest

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from tests.unit.score.builders import unit

RNG = np.random.default_rng(0)
BANK = unit(RNG.normal(size=(300, 64)))
QUERIES = unit(RNG.normal(size=(40, 64)))


def flat(vectors: np.ndarray) -> faiss.IndexFlatL2:
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def test_distances_are_those_of_a_plain_search_in_float64() -> None:
    by_hand = 2 - 2 * QUERIES.astype(np.float64) @ BANK.astype(np.float64).T
    order = np.argsort(by_hand, axis=1)
    for k in (1, 5, 20):
        distances, rows = knn.nearest(flat(BANK), QUERIES, k)
        assert np.array_equal(rows, order[:, :k])
        assert np.abs(knn.kth_distance(distances, k) - np.sort(by_hand, axis=1)[:, k - 1]).max() < 1e-5


def test_a_query_has_the_same_distance_alone_and_in_a_batch() -> None:
    together, rows = knn.nearest(flat(BANK), QUERIES, 3)
    for at, query in enumerate(QUERIES):
        alone, row = knn.nearest(flat(BANK), query[None], 3)
        assert np.array_equal(alone[0], together[at])
        assert np.array_equal(row[0], rows[at])


def test_a_bank_image_is_its_own_nearest_neighbour_at_distance_zero() -> None:
    distances, rows = knn.nearest(flat(BANK), BANK[7:8], 1)
    assert (distances[0, 0], rows[0, 0]) == (0.0, 7)


def test_equal_vectors_come_in_the_order_of_their_rows() -> None:
    twice = np.concatenate([BANK[:5], BANK[:5]])
    _, rows = knn.nearest(flat(twice), BANK[2:3], 2)
    assert rows[0].tolist() == [2, 7]


def test_more_neighbours_than_vectors_are_refused() -> None:
    with pytest.raises(BankError, match="301 neighbours are asked of a bank of 300"):
        knn.nearest(flat(BANK), QUERIES, 301)


def test_the_geometric_mean_is_the_root_of_the_product() -> None:
    distances = np.array([[0.5, 0.2, 0.1], [1.0, 1.0, 8.0]])
    assert np.allclose(knn.geometric_mean(distances), [0.01 ** (1 / 3), 2.0])
    assert np.allclose(knn.geometric_mean(distances, axis=0), np.sqrt([0.5, 0.2, 0.8]))


def test_one_view_at_distance_zero_does_not_make_the_score_zero() -> None:
    score = knn.geometric_mean(np.array([0.0, 0.25]))
    assert np.isclose(score, np.sqrt(knn.FLOOR * 0.25))


def test_leaving_the_own_vectors_out_gives_the_next_foreign_one() -> None:
    distances = np.array([[0.0, 0.1, 0.2, 0.3]])
    owners = np.array([[4, 9, 4, 2]])
    assert knn.kth_distance_without(distances, owners, 4, 1).tolist() == [0.1]
    assert knn.kth_distance_without(distances, owners, 4, 2).tolist() == [0.3]
    with pytest.raises(BankError, match="only 2 vectors of others among 4; 3 are needed"):
        knn.kth_distance_without(distances, owners, 4, 3)


def test_neighbours_are_named_once_nearest_first() -> None:
    distances = np.array([[0.3, 0.4], [0.1, 0.2]])
    owners = np.array([[5, 6], [6, 7]])
    assert knn.neighbours(distances, owners, 5) == (6, 7, 5)
    assert knn.neighbours(distances, owners, 1) == (6,)
