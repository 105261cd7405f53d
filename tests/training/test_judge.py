from __future__ import annotations

import numpy as np
import pytest

from training.judge import Labelled, Normals, auroc, judge


def normals(above: int, images: int = 40, bank: int = 100, calibration: int = 40) -> Normals:
    return Normals(images, above, bank, calibration, 0.05)


@pytest.mark.parametrize(
    ("new", "old", "state"),
    [
        (normals(2), normals(2), "not worse"),
        (normals(4), normals(0), "not worse"),
        (normals(12), normals(2), "worse"),
        (normals(12), normals(12), "not worse"),
        (normals(12), normals(20), "not worse"),
        (normals(0, bank=49), normals(0), "worse"),
        (normals(0, bank=50), normals(0), "not worse"),
        (normals(1, images=19), normals(1, images=19), "undecided"),
        (normals(19, images=19), normals(1, images=19), "worse"),
    ],
)
def test_a_bank_is_worse_that_breaks_its_promise_more_than_the_old_one_or_shrinks(
    new: Normals, old: Normals, state: str
) -> None:
    judged = judge(new, old)
    assert judged.state == state
    assert bool(judged.reasons) == (state != "not worse")


def test_a_lower_auroc_is_worse_beyond_the_tolerance() -> None:
    assert judge(normals(2), normals(2), Labelled(50, 50, 0.80, 0.82)).state == "worse"
    assert judge(normals(2), normals(2), Labelled(50, 50, 0.815, 0.82)).state == "not worse"
    assert judge(normals(2), normals(2), Labelled(50, 50, 0.9, 0.82)).state == "not worse"


def test_the_surprise_is_the_chance_that_simulation_finds() -> None:
    rng = np.random.default_rng(0)
    calibration, held = np.sort(rng.random((40_000, 40)), axis=1), rng.random((40_000, 30))
    threshold = calibration[:, 40 - 2 - 1]  # 2 of 40 lie above it
    above = (held > threshold[:, None]).sum(axis=1)
    for count in (1, 4, 7):
        stated = Normals(30, count, 100, 40, 0.05).surprise
        assert stated == pytest.approx((above >= count).mean(), abs=0.01)


def test_the_auroc_counts_pairs_and_ties_half() -> None:
    normal, abnormal = [0.1, 0.4, 0.4], [0.4, 0.9]
    pairs = [(a > n) + 0.5 * (a == n) for a in abnormal for n in normal]
    assert auroc(normal, abnormal) == pytest.approx(sum(pairs) / 6)
    assert auroc([0.0], [1.0]) == 1.0
