"""Which pixels are padding (PS3.3 section C.7.5.1.1.2). Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from dicom_node.score.attributes import cannot_decode, integer, value_of

Mask = npt.NDArray[np.bool_]


def padded_pixels(ds: Dataset, stored: npt.NDArray[np.integer[Any]]) -> Mask | None:
    """Return which stored values (H, W) are padding; None where none is.

    Raises
    ------
    CannotDecodeError
        If the padding value is no number.
    """
    value = value_of(ds, "PixelPaddingValue")
    if value is None:
        return None
    limits = (value, value_of(ds, "PixelPaddingRangeLimit"))
    ends = [_as_stored(ds, limit) for limit in limits if limit is not None]
    mask = (stored >= min(ends)) & (stored <= max(ends))
    return mask if bool(mask.any()) else None


def _as_stored(ds: Dataset, value: object) -> int:
    """Read a padding value in the pixels' own signedness: its VR is often US beside signed pixels."""
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little")
    try:
        number = int(str(value))
    except ValueError as error:
        raise cannot_decode(ds, "the Pixel Padding Value is no whole number") from error
    if integer(ds, "PixelRepresentation", 0) == 1:
        return number - 65536 if number > 32767 else number
    return number + 65536 if number < 0 else number
