"""Whether a new bank is worse than the one in use: a stated rule, pure.

With normals alone only a broken promise shows: too many held-out normals above the new bank's threshold. A loss
of sensitivity shows with labelled images only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.stats import betabinom, rankdata

MINIMUM_HELD_OUT = 20
"""Below this many held-out normals nothing is decided."""

SIGNIFICANCE = 0.05
AUROC_TOLERANCE = 0.01
SMALLEST_SHARE = 0.5

State = Literal["not worse", "worse", "undecided"]


@dataclass(frozen=True, slots=True)
class Normals:
    """Held-out normals against one bank.

    Attributes
    ----------
    images
        How many were scored by both banks.
    above
        How many of them lie above this bank's threshold.
    bank_images, calibration_images, false_positive_rate
        Of this bank.
    """

    images: int
    above: int
    bank_images: int
    calibration_images: int
    false_positive_rate: float

    @property
    def surprise(self) -> float:
        """Return how likely so many or more above the threshold are, if the calibration speaks for them.

        The threshold is an order statistic of m calibration scores of which r lie above it, so the number of n
        new ones above it is beta-binomial with r + 1 and m - r.
        """
        m = self.calibration_images
        r = int(self.false_positive_rate * m + 1e-9)
        return float(betabinom.sf(self.above - 1, self.images, r + 1, m - r))


@dataclass(frozen=True, slots=True)
class Labelled:
    """AUROC of both banks on the same labelled images, in neither bank."""

    normal: int
    abnormal: int
    new_auroc: float
    old_auroc: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict and its reasons, as sentences."""

    state: State
    reasons: list[str] = field(default_factory=list)


def auroc(normal: Sequence[float], abnormal: Sequence[float]) -> float:
    """Return the chance that an abnormal image scores above a normal one, ties counting half (Mann-Whitney)."""
    ranks = rankdata(np.concatenate([normal, abnormal]))
    count = len(abnormal)
    above = ranks[len(normal) :].sum() - count * (count + 1) / 2
    return float(above / (count * len(normal)))


def judge(new: Normals, old: Normals, labelled: Labelled | None = None) -> Judgement:
    """Compare two banks.

    Worse is a bank that breaks its promise on held-out normals (`Normals.surprise` below 0.05) and more so than
    the old one; that has fewer than half of the old one's normals; or whose AUROC is lower by more than 0.01.
    With fewer than 20 held-out normals nothing is decided.
    """
    worse = []
    if new.surprise < SIGNIFICANCE and new.above > old.above:
        worse.append(
            f"{new.above} of {new.images} held-out normals lie above its threshold, "
            f"{new.false_positive_rate:.1%} are promised; {old.above} with the active bank"
        )
    if new.bank_images < SMALLEST_SHARE * old.bank_images:
        worse.append(f"it holds {new.bank_images} normals, the active bank {old.bank_images}")
    if labelled is not None and labelled.new_auroc < labelled.old_auroc - AUROC_TOLERANCE:
        worse.append(
            f"its AUROC is {labelled.new_auroc:.3f} on {labelled.normal} normal and {labelled.abnormal} "
            f"abnormal images, that of the active bank {labelled.old_auroc:.3f}"
        )
    if worse:
        return Judgement("worse", worse)
    if new.images < MINIMUM_HELD_OUT:
        return Judgement(
            "undecided",
            [f"{new.images} held-out normals decide nothing; at least {MINIMUM_HELD_OUT} are needed"],
        )
    return Judgement("not worse")
