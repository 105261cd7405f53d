"""Trivial controls: what a method must beat before its figure means anything. Pure but for the file's size.

A data set can be told apart by how its files were made. Whoever reports an AUROC reports these beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.score.pixels import Grey
from training import metrics

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

NAMES = ("file size", "mean grey", "sharpness")
RANDOM_BACKBONE = "lite0-random"
"""The same network with random weights: what the architecture and the pixels give without any learning."""


def measure(path: Path, grey: Grey) -> tuple[float, float, float]:
    """Return the controls of one image in the order of `NAMES`.

    Parameters
    ----------
    path
        Of its file.
    grey
        (H, W) float32 in [0, 1].

    Returns
    -------
    tuple of float
        Bytes; mean grey in [0, 1]; variance of the Laplacian.
    """
    return float(path.stat().st_size), float(grey.mean(dtype=np.float64)), sharpness(grey)


def sharpness(grey: Grey) -> float:
    """Return the variance of the Laplacian (four neighbours minus four times the pixel, inside the border)."""
    values = grey.astype(np.float64)
    inside = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    laplacian = around - 4 * inside
    return float(laplacian.var()) if laplacian.size else 0.0


def oriented(labels: Rows, values: Floats) -> tuple[Floats, int]:
    """Return the values turned so that their AUROC is at least 0.5, and the sign that did it.

    This looks at the labels, in the control's favour: a method must beat it all the same.
    """
    sign = 1 if metrics.auroc(labels, values) >= 0.5 else -1
    return sign * values, sign
