"""From a row's scores to its figures: means over its seeds, intervals, operating points. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.score.calibration import Calibration
from training import bootstrap, metrics
from training.bench_features import Data
from training.bench_rows import Outcome, Row
from training.bootstrap import Difference, Draws
from training.metrics import Estimate

RATE = 0.05
"""Share of the held-out training normals that may lie above the threshold."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A row's figures: means over its seeds, and their intervals.

    Attributes
    ----------
    lowest, highest
        AUROC of the worst and of the best seed.
    specificity_at
        At the sensitivities of `metrics.SENSITIVITIES`.
    seconds
        Of computing the scores of one seed, features from the cache.
    draws
        The bootstrap's, for paired comparisons.
    held
        The held-out normals' scores (H,) of each seed.
    planted
        AUROC by which held-out normals with an opacity drawn into each stand out from those as they are; None where
        nobody asked.
    validation
        AUROC of the training set's pneumonias for validation against the held-out normals, with its interval by
        patient (an image of a normal chest counts as a patient); None where nobody asked.
    """

    row: Row
    auroc: Estimate
    precision: Estimate
    lowest: float
    highest: float
    sensitivity: float
    specificity: float
    specificity_at: tuple[float, ...]
    seconds: float
    draws: Draws
    held: tuple[npt.NDArray[np.float64], ...]
    planted: float | None = None
    validation: Estimate | None = None


def judge(row: Row, outcomes: Sequence[Outcome], seconds: float, data: Data, draws: int) -> Judged:
    """Return the figures of a row."""
    labels = data.labels
    drawn = [bootstrap.draw(labels, one.test, data.test.patients, draws) for one in outcomes]
    means = Draws(
        np.mean([one.auroc for one in drawn], axis=0), np.mean([one.average_precision for one in drawn], axis=0)
    )
    aurocs = [metrics.auroc(labels, one.test) for one in outcomes]
    precisions = [metrics.average_precision(labels, one.test) for one in outcomes]
    shares = [_operating(labels, one) for one in outcomes]
    return Judged(
        row,
        Estimate(float(np.mean(aurocs)), *bootstrap.interval(means.auroc)),
        Estimate(float(np.mean(precisions)), *bootstrap.interval(means.average_precision)),
        lowest=min(aurocs),
        highest=max(aurocs),
        sensitivity=float(np.mean([sensitivity for sensitivity, _ in shares])),
        specificity=float(np.mean([specificity for _, specificity in shares])),
        specificity_at=tuple(
            float(np.mean([metrics.specificity_at(labels, one.test, wanted) for one in outcomes]))
            for wanted in metrics.SENSITIVITIES
        ),
        seconds=seconds,
        draws=means,
        held=tuple(one.held for one in outcomes),
        planted=float(np.mean([_standing_out(one) for one in outcomes]))
        if all(len(one.planted) for one in outcomes)
        else None,
        validation=_validation(outcomes, data, draws),
    )


def paired(first: Judged, second: Judged) -> Difference:
    """Compare two rows' AUROC; both were drawn with the same counts."""
    return bootstrap.difference(first.auroc.value - second.auroc.value, first.draws.auroc, second.draws.auroc)


def _standing_out(one: Outcome) -> float:
    return metrics.auroc(*_against_held(one, one.planted))


def _validation(outcomes: Sequence[Outcome], data: Data, draws: int) -> Estimate | None:
    if not all(len(one.validation) for one in outcomes):
        return None
    asked = [_against_held(one, one.validation) for one in outcomes]
    drawn = [
        bootstrap.draw(labels, scores, _patients(len(labels), data), draws).auroc for labels, scores in asked
    ]
    return Estimate(
        float(np.mean([metrics.auroc(*one) for one in asked])), *bootstrap.interval(np.mean(drawn, axis=0))
    )


def _patients(count: int, data: Data) -> list[str]:
    sick = data.validation.patients
    return [*(f"normal {at}" for at in range(count - len(sick))), *sick]


def _against_held(
    one: Outcome, sick: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    return np.repeat([0, 1], [len(one.held), len(sick)]), np.concatenate([one.held, sick])


def _operating(labels: npt.NDArray[np.int64], one: Outcome) -> tuple[float, float]:
    point = metrics.at_threshold(labels, one.operating, Calibration.of(one.held).threshold(RATE))
    sensitivity, specificity = point.sensitivity, point.specificity
    return (sensitivity.value if sensitivity else np.nan), (specificity.value if specificity else np.nan)
