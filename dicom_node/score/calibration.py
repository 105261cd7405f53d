"""What scores of held-out normals say of a new score: percentile, z-score, threshold. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scores of normal images that are not in the bank.

    Attributes
    ----------
    scores
        (C,) float64, ascending.
    mean, std
        Of the scores; std with C - 1 degrees of freedom.
    """

    scores: npt.NDArray[np.float64]
    mean: float
    std: float

    @classmethod
    def of(cls, scores: npt.ArrayLike) -> Calibration:
        """Return the calibration of unsorted scores.

        Raises
        ------
        BankError
            If there are fewer than two, or they do not differ.
        """
        values = np.sort(np.asarray(scores, dtype=np.float64))
        if len(values) < 2 or not np.isfinite(values).all() or values[0] == values[-1]:
            raise BankError(
                f"{len(values)} calibration scores without spread; a calibration needs scores that differ"
            )
        return cls(values, float(values.mean()), float(values.std(ddof=1)))

    def percentile(self, value: float) -> float:
        """Return the share of calibration scores below `value`, percent."""
        return 100.0 * float(np.searchsorted(self.scores, value, side="left")) / len(self.scores)

    def z_score(self, value: float) -> float:
        """Return how many standard deviations `value` lies above the mean."""
        return (value - self.mean) / self.std

    def threshold(self, false_positive_rate: float) -> float:
        """Return the smallest calibration score that at most this share of the calibration scores exceed.

        The (1 - rate) quantile in its "inverted CDF" definition: no interpolation.
        """
        exceeding = int(np.floor(false_positive_rate * len(self.scores) + 1e-9))
        return float(self.scores[len(self.scores) - 1 - exceeding])
