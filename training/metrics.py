"""What scores and labels are worth: ranking, operating points, predictive values, calibration. Pure.

Scores rise with the distance from normal; label 1 is abnormal, 0 normal. Figures that do not exist (no image of
a class) are None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, ks_2samp, kstest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from training import bootstrap
from training.bootstrap import Difference, Draws

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SENSITIVITIES = (0.95, 0.98, 0.99)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """What happens at one threshold: above it is called abnormal.

    Attributes
    ----------
    sensitivity, specificity
        Shares with Wilson's interval, image by image; None where there is no image of that class.
    true_positives, false_negatives, true_negatives, false_positives
        Images.
    """

    threshold: float
    sensitivity: Estimate | None
    specificity: Estimate | None
    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int


@dataclass(frozen=True, slots=True)
class Predictive:
    """Predictive values at a prevalence, by Bayes' rule; None where nothing would be called so."""

    prevalence: float
    positive: float | None
    negative: float | None


@dataclass(frozen=True, slots=True)
class Subgroup:
    """The images that share one value of a column. Ranking figures are None without both classes."""

    column: str
    value: str
    normal: int
    abnormal: int
    auroc: Estimate | None
    point: Point | None


@dataclass(frozen=True, slots=True)
class Uniformity:
    """How the percentiles of normal images that calibrated nothing are spread; well calibrated is evenly.

    Attributes
    ----------
    images
        How many.
    deciles
        Share of them in each tenth [0, 10), ..., [90, 100]; 0.1 each is right.
    above_95
        Share at or above percentile 95; 0.05 is right.
    ks
        Largest distance between their distribution and the even one (Kolmogorov-Smirnov).
    p
        Of that distance if the calibration were right. With the number of calibration images known it is the
        two-sample test, which allows for their being a sample too.
    """

    images: int
    deciles: tuple[float, ...]
    above_95: float
    ks: float
    p: float


def auroc(labels: Rows, scores: Floats) -> float:
    """Return the area under the ROC curve; both classes must be present."""
    return float(roc_auc_score(labels, scores))


def average_precision(labels: Rows, scores: Floats) -> float:
    """Return the average precision of finding the abnormal; both classes must be present."""
    return float(average_precision_score(labels, scores))


def ranking(labels: Rows, scores: Floats, draws: Draws) -> tuple[Estimate, Estimate]:
    """Return AUROC and average precision with the intervals that `bootstrap.draw` gave."""
    return (
        Estimate(auroc(labels, scores), *bootstrap.interval(draws.auroc)),
        Estimate(average_precision(labels, scores), *bootstrap.interval(draws.average_precision)),
    )


def at_threshold(labels: Rows, scores: Floats, threshold: float) -> Point:
    """Count what is called what when above the threshold (not at it) is abnormal, as the node does."""
    called = scores > threshold
    hits, misses = int((called & (labels == 1)).sum()), int((~called & (labels == 1)).sum())
    alarms, quiet = int((called & (labels == 0)).sum()), int((~called & (labels == 0)).sum())
    return Point(
        threshold=float(threshold),
        sensitivity=share(hits, hits + misses),
        specificity=share(quiet, quiet + alarms),
        true_positives=hits,
        false_negatives=misses,
        true_negatives=quiet,
        false_positives=alarms,
    )


def share(part: int, whole: int) -> Estimate | None:
    """Return part / whole with Wilson's 95 % interval; None of nothing."""
    if not whole:
        return None
    found = binomtest(part, whole).proportion_ci(0.95, method="wilson")
    return Estimate(part / whole, float(found.low), float(found.high))


def specificity_at(labels: Rows, scores: Floats, sensitivity: float) -> float:
    """Return the best specificity of any threshold that reaches this sensitivity.

    The threshold is chosen on these very images: it says what the ranking could give, not what a site gets.
    """
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    return float(1.0 - false_rate[true_rate >= sensitivity - 1e-12].min())


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> Predictive:
    """Return PPV and NPV where this share of the images is abnormal.

    Parameters
    ----------
    prevalence
        In (0, 1).
    """
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    quiet, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return Predictive(
        prevalence,
        hits / (hits + alarms) if hits + alarms > 0 else None,
        quiet / (quiet + misses) if quiet + misses > 0 else None,
    )


def subgroups(
    labels: Rows,
    scores: Floats,
    threshold: float | None,
    columns: Mapping[str, Sequence[str]],
    *,
    patients: Sequence[str] | None = None,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
) -> list[Subgroup]:
    """Return one row for each value of each column, in the order of columns and of sorted values."""
    rows = []
    for column, values in columns.items():
        every = np.array(values, dtype=object)
        for value in sorted(set(values)):
            inside = every == value
            own, own_scores = labels[inside], scores[inside]
            both = len(set(own.tolist())) == 2
            whose = (
                None
                if patients is None
                else [who for who, is_in in zip(patients, inside, strict=True) if is_in]
            )
            rows.append(
                Subgroup(
                    column,
                    value,
                    normal=int((own == 0).sum()),
                    abnormal=int((own == 1).sum()),
                    auroc=ranking(own, own_scores, bootstrap.draw(own, own_scores, whose, draws, seed))[0]
                    if both
                    else None,
                    point=None if threshold is None else at_threshold(own, own_scores, threshold),
                )
            )
    return rows


def compare(
    labels: Rows,
    first: Floats,
    second: Floats,
    *,
    patients: Sequence[str] | None = None,
    draws: int = bootstrap.DRAWS,
    seed: int = 0,
) -> tuple[Difference, Difference]:
    """Return the differences in AUROC and in average precision, first minus second, by a paired bootstrap."""
    one = bootstrap.draw(labels, first, patients, draws, seed)
    two = bootstrap.draw(labels, second, patients, draws, seed)
    return (
        bootstrap.difference(auroc(labels, first) - auroc(labels, second), one.auroc, two.auroc),
        bootstrap.difference(
            average_precision(labels, first) - average_precision(labels, second),
            one.average_precision,
            two.average_precision,
        ),
    )


def uniformity(percentiles: Floats, calibration_images: int | None = None) -> Uniformity:
    """Return how evenly the percentiles of normal images are spread.

    Parameters
    ----------
    percentiles
        (N,) in [0, 100], of normal images that are neither in the bank nor in its calibration.
    calibration_images
        How many scores the percentiles were read from, where known.
    """
    if calibration_images is None:
        found = kstest(percentiles / 100, "uniform")
    else:
        found = ks_2samp(percentiles / 100, (np.arange(calibration_images) + 0.5) / calibration_images)
    deciles = np.histogram(percentiles, bins=np.linspace(0, 100, 11))[0] / len(percentiles)
    return Uniformity(
        images=len(percentiles),
        deciles=tuple(deciles.tolist()),
        above_95=float((percentiles >= 95).mean()),
        ks=float(found.statistic),
        p=float(found.pvalue),
    )
