"""The VOI LUT that an image carries, as a curve that a page can draw with (PS3.3 section C.11.2.1.1). Pure."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi_lut

from dicom_node.score.attributes import items

POINTS = 256

_UNUSABLE = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError, struct.error,
)  # fmt: skip
"""What pydicom raises on a table that is not what its descriptor says."""


def voi_curve(ds: Dataset, least: float, most: float) -> npt.NDArray[np.uint8] | None:
    """Return the grey in [0, 255] that the image's first VOI LUT gives to values after the Modality LUT.

    Parameters
    ----------
    least, most
        The curve has `POINTS` points, evenly spaced from the one to the other.

    Returns
    -------
    numpy.ndarray
        (`POINTS`,) uint8, before any inversion; None where there is no VOI LUT that can be used.
    """
    if not items(ds, "VOILUTSequence"):
        return None
    values = np.rint(np.linspace(least, most, POINTS)).astype(np.int32)
    try:
        _, _, bits = ds.VOILUTSequence[0].LUTDescriptor
        mapped = apply_voi_lut(values, ds, index=0, prefer_lut=True).astype(np.float64)
    except _UNUSABLE:
        return None
    grey: npt.NDArray[np.uint8] = np.rint(mapped * (255.0 / ((1 << bits) - 1))).clip(0, 255).astype(np.uint8)
    return grey
