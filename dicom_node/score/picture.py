"""Small pictures of an image for people: a thumbnail, and the whole image with its depth of grey. Pure."""

from __future__ import annotations

import io
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dicom_node.score.pixels import Grey

THUMBNAIL, WHOLE = 160, 2048
"""Longest sides, pixels."""

VALUES = "Values"
"""Keyword of the PNG text chunk that says what black and white stand for."""
CURVE = "Curve"
"""Keyword of the PNG text chunk with the image's VOI LUT."""


def thumbnail(grey: Grey) -> bytes:
    """Return a JPEG of at most `THUMBNAIL` pixels a side of an image (H, W) in [0, 1], as `pixels.to_grey` gives it."""
    content = io.BytesIO()
    _levels(_small(grey, THUMBNAIL), 8).save(content, format="JPEG", quality=82)
    return content.getvalue()


def whole(
    grey: Grey, values: tuple[float, float], *, deep: bool = False, curve: npt.NDArray[np.uint8] | None = None
) -> bytes:
    """Return a grey PNG of at most `WHOLE` pixels a side; compressed for speed, not for size.

    Parameters
    ----------
    values
        The values after the Modality LUT that are shown as black and as white; of an inverted image the first is
        the larger one. They stand in the PNG as the text `VALUES`, so that a page can tell real values.
    deep
        Whether it has 16 bits, else 8: a narrow window of an image with more than 8 shows no steps.
    curve
        Grey that the image's VOI LUT asks for at evenly spaced values from the smallest to the largest; in the PNG as
        the text `CURVE`, hexadecimal.
    """
    content, said = io.BytesIO(), PngInfo()
    said.add_text(VALUES, f"{values[0]:.9g} {values[1]:.9g}")
    if curve is not None:
        said.add_text(CURVE, curve.tobytes().hex())
    picture = _levels(_small(grey, WHOLE), 16 if deep else 8)
    picture.save(content, format="PNG", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=said)
    return content.getvalue()


def _small(grey: Grey, longest: int) -> Image.Image:
    picture = Image.fromarray(np.asarray(grey, dtype=np.float32))
    picture.thumbnail((longest, longest), Image.Resampling.BOX, reducing_gap=2.0)
    return picture


def _levels(picture: Image.Image, bits: int) -> Image.Image:
    most = (1 << bits) - 1
    scaled = np.rint(np.asarray(picture) * np.float32(most)).clip(0, most)
    return Image.fromarray(scaled.astype(np.uint16 if bits == 16 else np.uint8))
