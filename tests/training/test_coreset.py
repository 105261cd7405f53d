from __future__ import annotations

import numpy as np
import pytest

from training.coreset import Sample, greedy


def points(count: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, dim), dtype=np.float32)


def covering(all_points: np.ndarray, rows: np.ndarray) -> float:
    """Return the largest distance of any point to the chosen ones."""
    apart = np.linalg.norm(all_points[:, None].astype(float) - all_points[rows][None], axis=2)
    return float(apart.min(axis=1).max())


def test_each_next_point_is_the_one_farthest_from_all_before() -> None:
    line = np.array([[0.0], [1.0], [2.0], [10.0], [4.0]], dtype=np.float32)
    for seed in range(10):
        chosen = greedy(line, 4, seed).tolist()
        for at in range(1, 4):
            apart = np.abs(line - line[chosen[:at]].T).min(axis=1)
            assert apart[chosen[at]] == apart.max()
    assert greedy(line, 2, 0).tolist()[1] in (0, 3)


def test_no_point_is_chosen_twice_even_among_equal_ones() -> None:
    same = np.ones((20, 4), dtype=np.float32)
    assert sorted(greedy(same, 15, 0).tolist()) == sorted(set(greedy(same, 15, 0).tolist()))


def test_a_coreset_covers_better_than_a_sample_and_within_twice_the_best() -> None:
    clustered = np.concatenate([points(900) * 0.01, points(12, seed=1) * 5.0])
    found = covering(clustered, greedy(clustered, 13, 0))
    chance = [np.random.default_rng(seed).choice(912, 13, replace=False) for seed in range(20)]
    assert found < min(covering(clustered, rows) for rows in chance)
    assert found <= 2 * 0.018  # twelve outliers and the cluster, whose diameter is below 0.018


def test_it_is_a_function_of_the_seed() -> None:
    some = points(200)
    assert np.array_equal(greedy(some, 20, 3), greedy(some, 20, 3))
    assert not np.array_equal(greedy(some, 20, 3), greedy(some, 20, 4))
    assert greedy(some, 500, 0).tolist() == list(range(200))


def test_a_sample_does_not_depend_on_how_the_rows_came_in_parts() -> None:
    rows = points(1000)
    found = []
    for step in (1000, 137, 10):
        sample = Sample(50, 7)
        for at in range(0, 1000, step):
            sample.add(rows[at : at + step])
        assert sample.seen == 1000
        found.append(sample.rows())
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


def test_a_sample_is_uniform_and_keeps_the_order() -> None:
    counts = np.zeros(40)
    for seed in range(400):
        sample = Sample(10, seed)
        for at in range(0, 40, 8):
            sample.add(np.arange(at, at + 8, dtype=np.float32)[:, None])
        kept = sample.rows()[:, 0].astype(int)
        assert len(set(kept.tolist())) == 10
        assert (np.diff(kept) > 0).all()
        counts[kept] += 1
    assert counts.mean() == pytest.approx(100)
    assert 65 < counts.min() <= counts.max() < 140  # four standard deviations of a binomial are 35


def test_fewer_rows_than_its_size_are_all_kept() -> None:
    sample = Sample(10, 0)
    sample.add(points(4))
    assert np.array_equal(sample.rows(), points(4))
