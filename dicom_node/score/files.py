"""Reading an image file: DICOM with or without Part 10 header, PNG, JPEG.

The score room's only reader of images from disk; knows nothing of eligibility or banks.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score.pixels import MAXIMUM_PIXELS, Grey, Rescale, Window, to_grey

_PICTURES = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_COLOUR_TOLERANCE = 12

# What pydicom raises on bytes that are not, or not quite, DICOM; they share no base class.
_PARSER_ERRORS = (
    InvalidDicomError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    OSError,
    EOFError,
    OverflowError,
    RecursionError,
    struct.error,
    zlib.error,
)


def read_image(
    path: Path,
    *,
    window: Window = "none",
    rescale: Rescale = "minmax",
    maximum_pixels: int = MAXIMUM_PIXELS,
) -> tuple[Grey, Dataset | None]:
    """Read one image file.

    Parameters
    ----------
    path
        DICOM (Part 10, or a bare data set), PNG (8 or 16 bit) or JPEG; told apart by content, not by name.
    window, rescale, maximum_pixels
        As for `dicom_node.score.pixels.to_grey`; `window` has no meaning for PNG and JPEG. Their "none" divides
        by the full range of the format, 255 or 65535.

    Returns
    -------
    grey : numpy.ndarray
        (H, W) float32 in [0, 1], brighter is denser.
    ds : Dataset or None
        The DICOM data set; None for PNG and JPEG.

    Raises
    ------
    CannotUnderstandError
        If the file is none of the three.
    CannotDecodeError
        If its pixels cannot be used.
    """
    content = read_bytes(path)
    if is_picture(content):
        return picture_to_grey(content, path.name, rescale=rescale, maximum_pixels=maximum_pixels), None
    ds = parse_dicom(content, path.name)
    return to_grey(ds, window=window, rescale=rescale, maximum_pixels=maximum_pixels), ds


def read_bytes(path: Path) -> bytes:
    """Return the file's content.

    Raises
    ------
    CannotUnderstandError
        If the file cannot be opened.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotUnderstandError(f"{path.name} cannot be read: {error.strerror}") from error


def is_picture(content: bytes) -> bool:
    """Say whether the content is PNG or JPEG by its signature."""
    return any(content.startswith(signature) for signature in _PICTURES)


def parse_dicom(content: bytes, name: str, *, stop_before_pixels: bool = False) -> Dataset:
    """Parse a DICOM data set; one without Part 10 header gets the transfer syntax its bytes show.

    Raises
    ------
    CannotUnderstandError
        If the content is not DICOM.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(BytesIO(content), force=True, stop_before_pixels=stop_before_pixels)
            known = "SOPClassUID" in ds or "Rows" in ds
    except _PARSER_ERRORS as error:
        raise CannotUnderstandError(f"{name} cannot be read as DICOM: {error}") from error
    if not known:
        raise CannotUnderstandError(f"{name} is neither DICOM nor PNG nor JPEG")
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return ds


def picture_to_grey(
    content: bytes, name: str, *, rescale: Rescale = "minmax", maximum_pixels: int = MAXIMUM_PIXELS
) -> Grey:
    """Return a PNG or JPEG as (H, W) float32 in [0, 1].

    Raises
    ------
    CannotDecodeError
        If it is damaged, too large, in colour, or constant.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(content)) as image:
                width, height = image.size
                if width * height > maximum_pixels:
                    raise CannotDecodeError(
                        f"{name}: {height} x {width} pixels; at most {maximum_pixels} are decoded"
                    )
                values, full = _grey_values(image, name)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise CannotDecodeError(f"{name}: the picture cannot be decoded: {error}") from error
    least, most = float(values.min()), float(values.max())
    if least == most:
        raise CannotDecodeError(f"{name}: every pixel has the value {least:g}; nothing is left to score")
    low, high = (least, most) if rescale == "minmax" else (0.0, full)
    return (values - np.float32(low)) / np.float32(high - low)


def _grey_values(image: Image.Image, name: str) -> tuple[npt.NDArray[np.float32], float]:
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.float32), 65535.0
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.float32), 255.0
    if image.mode in ("CMYK", "F", "YCbCr", "LAB", "HSV"):
        raise CannotDecodeError(f"{name}: the picture is in mode {image.mode}; grey or grey RGB is read")
    channels = np.asarray(image.convert("RGB"))
    spread = int((channels.max(axis=2).astype(int) - channels.min(axis=2)).max())
    if spread > _COLOUR_TOLERANCE:
        raise CannotDecodeError(
            f"{name}: the picture is in colour (channels differ by up to {spread}); a radiograph is grey"
        )
    return np.asarray(image.convert("RGB").convert("L"), dtype=np.float32), 255.0
