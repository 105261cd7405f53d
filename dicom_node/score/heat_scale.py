"""What distances the places of held-out normals have, and so what a place's distance means. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError

Floats = npt.NDArray[np.float32]

LEVELS = np.append(1.0 - np.logspace(0.0, -4.0, 401), 1.0)
"""Shares at which the normals' distances are kept: denser towards 1, where the unusual lies."""


@dataclass(frozen=True, slots=True)
class HeatScale:
    """Distances of the places of held-out normals.

    Attributes
    ----------
    normal
        (len(LEVELS),) float32, ascending: the distances below which these shares of the held-out normals'
        places lie.
    peaks
        (C,) float32, ascending: the largest distance anywhere in each held-out normal.
    """

    normal: Floats
    peaks: Floats

    def percentile(self, distance: Floats) -> Floats:
        """Return the share of normals' places with a smaller distance, percent, float32 of the same shape."""
        return np.asarray(100.0 * np.interp(distance, self.normal, LEVELS), dtype=np.float32)

    def peak_percentile(self, peak: float) -> float:
        """Return the share of held-out normals in which every place has a smaller distance, percent."""
        return 100.0 * float(np.searchsorted(self.peaks, peak, side="left")) / len(self.peaks)

    def peak_threshold(self, false_positive_rate: float) -> float:
        """Return the distance that at most this share of the held-out normals exceed anywhere."""
        exceeding = int(np.floor(false_positive_rate * len(self.peaks) + 1e-9))
        return float(self.peaks[len(self.peaks) - 1 - exceeding])


def scale_of(fields: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return `normal` and `peaks` of the distances (h, w) of held-out normals; NaN where nothing was measured.

    Raises
    ------
    BankError
        If there are none.
    """
    if not fields:
        raise BankError("no image to calibrate heat maps with")
    every = np.stack(fields)
    normal = np.quantile(every[~np.isnan(every)], LEVELS).astype(np.float32)
    return normal, np.sort(np.nanmax(every, axis=(1, 2))).astype(np.float32)
