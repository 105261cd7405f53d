"""Bootstrap of AUROC and average precision: stratified, by patient, seeded. Pure.

One draw is a vector of counts: how often each image stands in the resample. Both figures follow from the counts
over the sorted scores, for many draws at once; the tests compare them with scikit-learn on the resample itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

DRAWS = 2000
_CELLS = 4_000_000
"""Draws times images that are in memory at once."""


@dataclass(frozen=True, slots=True)
class Draws:
    """What every draw gave.

    Attributes
    ----------
    auroc, average_precision
        (B,) float64.
    """

    auroc: Floats
    average_precision: Floats


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired comparison of two runs over the same images, first minus second.

    Attributes
    ----------
    value
        Of the images as they are.
    low, high
        95 % percentile interval.
    p
        Two-sided: twice the share of draws on the rarer side of zero, counting the data itself once.
    """

    value: float
    low: float
    high: float
    p: float


def interval(draws: Floats) -> tuple[float, float]:
    """Return the 95 % percentile interval."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def difference(value: float, first: Floats, second: Floats) -> Difference:
    """Compare two runs whose draws come from the same counts (same labels, patients, seed)."""
    gaps = first - second
    rarer = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    low, high = interval(gaps)
    return Difference(value, low, high, min(1.0, 2 * (rarer + 1) / (len(gaps) + 1)))


def draw(
    labels: Rows, scores: Floats, patients: Sequence[str] | None = None, count: int = DRAWS, seed: int = 0
) -> Draws:
    """Resample and measure.

    Parameters
    ----------
    labels
        (N,) 0 or 1, both present.
    scores
        (N,) higher is further from normal.
    patients
        (N,) whose image each is: a patient's images of one class are drawn together, because they are not
        independent. None draws every image by itself.
    count
        Draws, B.
    seed
        The counts follow from labels, patients, count and seed alone, so two runs can be paired.

    Returns
    -------
    Draws
        Of each draw. Patients are drawn with replacement within each class, as many as there are.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    aurocs, precisions = [], []
    for counts in counted(labels, patients, count, seed):
        positive = _cumulated(counts * labels, order, ends)
        negative = _cumulated(counts * (1 - labels), order, ends)
        aurocs.append(_auroc(positive, negative))
        precisions.append(_average_precision(positive, negative))
    return Draws(np.concatenate(aurocs), np.concatenate(precisions))


def counted(labels: Rows, patients: Sequence[str] | None, count: int, seed: int) -> Iterator[Rows]:
    """Yield how often each image is in each draw, in blocks (b, N)."""
    rng = np.random.default_rng(seed)
    names = [str(row) for row in range(len(labels))] if patients is None else list(patients)
    numbers = {unit: at for at, unit in enumerate(dict.fromkeys(zip(labels.tolist(), names, strict=True)))}
    owner = np.array([numbers[unit] for unit in zip(labels.tolist(), names, strict=True)], dtype=np.int64)
    classes = np.array([label for label, _ in numbers], dtype=np.int64)
    block = max(1, _CELLS // len(labels))
    for at in range(0, count, block):
        taken = np.zeros((min(block, count - at), len(numbers)), dtype=np.int64)
        for label in (0, 1):
            units = np.flatnonzero(classes == label)
            taken[:, units] = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=len(taken))
        yield taken[:, owner]


def _cumulated(counts: Rows, order: Rows, ends: Rows) -> Floats:
    """Return how many lie at or above each distinct score, (b, distinct), highest score first."""
    return np.cumsum(counts[:, order], axis=1)[:, ends].astype(np.float64)


def _auroc(positive: Floats, negative: Floats) -> Floats:
    """Area under the curve of the rates, by trapezoids: ties count half."""
    widths = np.diff(negative, axis=1, prepend=0.0)
    heights = positive - np.diff(positive, axis=1, prepend=0.0) / 2
    return np.asarray((widths * heights).sum(axis=1) / (positive[:, -1] * negative[:, -1]))


def _average_precision(positive: Floats, negative: Floats) -> Floats:
    """Sum over distinct scores of the step in recall times the precision there."""
    steps = np.diff(positive, axis=1, prepend=0.0)
    precision = positive / np.maximum(positive + negative, 1.0)
    return np.asarray((steps * precision).sum(axis=1) / positive[:, -1])
