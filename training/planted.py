"""A soft opacity drawn into a normal chest: an abnormality for choosing by where no label may be looked at. Pure.

It is a drawing, not a disease: a configuration that misses it is blind, one that finds it need not be good. All its
numbers come from where lungs lie in a frontal image and were fixed before anything was measured with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.float32]

_BLOBS = 7


def plant(grey: Grey, rng: np.random.Generator) -> Grey:
    """Return the image with one patchy opacity in one lung.

    Parameters
    ----------
    grey
        (H, W) float32 in [0, 1], a frontal chest that fills its frame, bright where it is dense.
    rng
        Draws side, place, extent and density.

    Returns
    -------
    numpy.ndarray
        (H, W) float32 in [0, 1]. Nowhere darker than before, nowhere denser than the middle of the chest.
    """
    height, width = grey.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x / np.float32(width), y / np.float32(height)
    across = 0.5 + float(rng.choice([-1.0, 1.0])) * rng.uniform(0.16, 0.28)
    down = rng.uniform(0.35, 0.65)
    cloud = np.zeros_like(grey)
    for _ in range(_BLOBS):
        cx, cy = across + rng.normal(0.0, 0.03), down + rng.normal(0.0, 0.05)
        rx, ry = rng.uniform(0.04, 0.08, 2)
        weight = np.float32(rng.uniform(0.3, 0.6))
        cloud += weight * np.exp(
            -(((x - np.float32(cx)) / np.float32(rx)) ** 2) - ((y - np.float32(cy)) / np.float32(ry)) ** 2
        )
    share = np.float32(rng.uniform(0.6, 0.95)) * (1.0 - np.exp(-cloud))
    dense = np.float32(np.quantile(grey[:, int(0.45 * width) : int(0.55 * width) + 1], 0.75))
    return np.asarray(grey + share * np.maximum(dense - grey, 0.0), dtype=np.float32)
