"""Each figure against values worked out by hand, and against scikit-learn on the resample itself."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training import bootstrap, metrics

LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1])
SCORES = np.array([0.1, 0.2, 0.3, 0.6, 0.4, 0.5, 0.7, 0.8])


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    # 16 pairs; 0.6 lies above 0.4 and above 0.5: 14 are right.
    assert metrics.auroc(LABELS, SCORES) == pytest.approx(14 / 16)
    assert metrics.auroc(np.array([0, 1, 0, 1]), np.array([1.0, 1.0, 0.0, 2.0])) == pytest.approx(3.5 / 4)


def test_average_precision_adds_the_precision_at_each_hit() -> None:
    # From the top: hit (1/1), hit (2/2), miss, hit (3/4), hit (4/5).
    assert metrics.average_precision(LABELS, SCORES) == pytest.approx((1 + 1 + 3 / 4 + 4 / 5) / 4)


def test_what_lies_at_the_threshold_is_not_above_it() -> None:
    point = metrics.at_threshold(LABELS, SCORES, 0.5)
    assert (point.true_positives, point.false_negatives) == (2, 2)
    assert (point.true_negatives, point.false_positives) == (3, 1)
    assert point.sensitivity is not None
    assert point.specificity is not None
    assert (point.sensitivity.value, point.specificity.value) == (0.5, 0.75)


def test_a_class_that_is_not_there_has_no_share() -> None:
    point = metrics.at_threshold(np.zeros(3, dtype=np.int64), SCORES[:3], 0.15)
    assert point.sensitivity is None
    assert point.specificity is not None
    assert point.specificity.value == pytest.approx(1 / 3)


def test_wilsons_interval_is_the_one_in_the_books() -> None:
    # Newcombe 1998, table I: 81 of 263, without continuity correction.
    found = metrics.share(81, 263)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert metrics.share(0, 0) is None


@pytest.mark.parametrize(("sensitivity", "specificity"), [(1.0, 0.75), (0.75, 0.75), (0.5, 1.0), (0.95, 0.75)])
def test_specificity_at_a_sensitivity_is_the_best_that_reaches_it(
    sensitivity: float, specificity: float
) -> None:
    assert metrics.specificity_at(LABELS, SCORES, sensitivity) == pytest.approx(specificity)


def test_predictive_values_follow_bayes() -> None:
    # 1000 people, 100 ill: 90 found, 10 missed, 180 false alarms, 720 rightly quiet.
    found = metrics.predictive_values(0.9, 0.8, 0.1)
    assert found.positive == pytest.approx(90 / 270)
    assert found.negative == pytest.approx(720 / 730)
    assert metrics.predictive_values(0.0, 1.0, 0.1).positive is None
    assert metrics.predictive_values(1.0, 0.0, 0.1).negative is None


def test_even_percentiles_are_even_and_crowded_ones_are_not() -> None:
    even = metrics.uniformity(np.arange(0.5, 100, 1), 400)
    assert even.deciles == pytest.approx([0.1] * 10)
    assert even.above_95 == pytest.approx(0.05)
    assert even.ks == pytest.approx(0.01, abs=0.005)
    assert even.p > 0.99
    crowded = metrics.uniformity(np.full(50, 99.0))
    assert crowded.deciles[-1] == 1.0
    assert crowded.ks == pytest.approx(0.99)
    assert crowded.p < 1e-9


def test_a_small_calibration_is_allowed_its_own_luck() -> None:
    percentiles = np.clip(np.arange(0.5, 100, 0.5) + 12, 0, 100)
    assert metrics.uniformity(percentiles, 20).p > 0.5
    assert metrics.uniformity(percentiles, 5000).p < 0.02


def test_a_subgroup_of_one_class_has_shares_and_no_ranking() -> None:
    columns = {"sex": ["F", "F", "F", "F", "F", "F", "M", "M"]}
    rows = metrics.subgroups(LABELS, SCORES, 0.5, columns, draws=100)
    assert [(row.value, row.normal, row.abnormal) for row in rows] == [("F", 4, 2), ("M", 0, 2)]
    women, men = rows
    assert women.auroc is not None
    assert women.auroc.value == pytest.approx(6 / 8)
    assert men.auroc is None
    assert men.point is not None
    assert men.point.sensitivity is not None
    assert men.point.sensitivity.value == 1.0
    assert men.point.specificity is None


def sample(seed: int, count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 3 == 0).astype(np.int64)
    return labels, np.round(rng.normal(labels * 0.8, 1.0), 1)


@pytest.mark.parametrize("patients", [None, [f"p{at // 2}" for at in range(60)]])
def test_every_draw_gives_what_scikit_learn_gives_on_the_resample(patients: list[str] | None) -> None:
    labels, scores = sample(4)
    assert len(set(scores.tolist())) < len(scores), "ties are part of the question"
    drawn = bootstrap.draw(labels, scores, patients, 40, seed=3)
    counts = np.concatenate(list(bootstrap.counted(labels, patients, 40, seed=3)))
    for at, count in enumerate(counts):
        again, own = np.repeat(labels, count), np.repeat(scores, count)
        assert drawn.auroc[at] == pytest.approx(roc_auc_score(again, own))
        assert drawn.average_precision[at] == pytest.approx(average_precision_score(again, own))


def test_draws_keep_the_size_of_each_class_and_a_patients_images_together() -> None:
    labels, _ = sample(0)
    alone = np.concatenate(list(bootstrap.counted(labels, None, 30, seed=0)))
    assert (alone[:, labels == 1].sum(axis=1) == 20).all()
    assert (alone[:, labels == 0].sum(axis=1) == 40).all()
    patients = [f"p{at // 6}" for at in range(60)]
    together = np.concatenate(list(bootstrap.counted(labels, patients, 30, seed=0)))
    assert (together[:, 0] == together[:, 3]).all()  # both ill, both of p0
    assert (together[:, 1] == together[:, 2]).all()
    assert (together[:, 0] != together[:, 6]).any()


def test_blocks_of_draws_are_one_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    labels, scores = sample(1)
    whole = bootstrap.draw(labels, scores, None, 50, seed=9)
    monkeypatch.setattr(bootstrap, "_CELLS", 60 * 7)
    parts = bootstrap.draw(labels, scores, None, 50, seed=9)
    assert parts.auroc.shape == (50,)
    assert metrics.ranking(labels, scores, parts)[0].value == metrics.ranking(labels, scores, whole)[0].value


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    truth, covered = 0.7602, 0  # P(N(1, 1) > N(0, 1))
    for seed in range(100):
        rng = np.random.default_rng(seed)
        labels = np.repeat([0, 1], 80)
        scores = rng.normal(labels, 1.0)
        low, high = bootstrap.interval(bootstrap.draw(labels, scores, None, 300, seed).auroc)
        covered += low <= truth <= high
    assert 88 <= covered <= 99


def test_the_same_scores_do_not_differ_and_better_ones_do() -> None:
    labels, scores = sample(2, 240)
    same, _ = metrics.compare(labels, scores, scores * 2, draws=200)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    better, precision = metrics.compare(labels, scores + 2 * labels, scores, draws=500)
    assert better.value == pytest.approx(
        metrics.auroc(labels, scores + 2 * labels) - metrics.auroc(labels, scores)
    )
    assert 0 < better.low < better.value < better.high
    assert better.p == pytest.approx(2 / 501)
    assert precision.low > 0


def test_pairing_sees_a_difference_that_two_intervals_would_hide() -> None:
    labels, scores = sample(5, 300)
    rng = np.random.default_rng(0)
    other = scores - 0.25 * labels + rng.normal(0, 0.02, 300)
    found, _ = metrics.compare(labels, scores, other, draws=500)
    mine, theirs = (bootstrap.interval(bootstrap.draw(labels, s, None, 500).auroc) for s in (scores, other))
    assert mine[0] < theirs[1], "the single intervals overlap"
    assert found.low > 0
    assert found.p < 0.01
