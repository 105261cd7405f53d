"""From a data set's stored pixel values to a grey image in [0, 1] where brighter means denser.

Pure: takes a data set that someone else read, does no I/O. Knows nothing of views, banks or eligibility.
"""

from __future__ import annotations

import re
import struct
import warnings
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node.score.attributes import cannot_decode, integer, items, number, positive, text, value_of
from dicom_node.score.decodable import check_size, check_stream
from dicom_node.score.jpeg_extended import decode_extended, needs_gdcm
from dicom_node.score.padding import Mask, padded_pixels

Stored = npt.NDArray[np.integer[Any]]
Grey = npt.NDArray[np.float32]
Window = Literal["none", "voi"]
Rescale = Literal["minmax", "none"]

MAXIMUM_PIXELS = 100_000_000
"""Rows x Columns above which nothing is decoded unless the caller says otherwise."""

_COLOUR_TOLERANCE = 12
"""Largest difference between the channels of an 8-bit RGB image that is still grey (lossy chroma noise)."""

_NO_MEMORY = re.compile(
    r"unable to allocate|bad_alloc|out of memory|cannot allocate memory|MemoryError|^  \w+: $",
    re.IGNORECASE | re.MULTILINE,
)
"""How decoders say that memory was short: pydicom keeps their words, not their exceptions, and the interpreter's own
MemoryError has none, which leaves the decoder's name alone on its line."""

# What pydicom, gdcm, Pillow and openjpeg raise on damaged streams; they share no base class.
_DECODER_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    RuntimeError,
    OSError,
    SyntaxError,
    EOFError,
    MemoryError,
    OverflowError,
    struct.error,
)


def assumptions(ds: Dataset) -> tuple[str, ...]:
    """Return what `to_grey` assumes where the data set is silent or contradicts itself, one sentence each."""
    notes = []
    photometric = text(ds, "PhotometricInterpretation")
    if not photometric:
        notes.append("Photometric Interpretation is missing: taken as MONOCHROME2")
    shape = text(ds, "PresentationLUTShape")
    if (photometric, shape) in {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")}:
        notes.append(
            f"{photometric} with Presentation LUT Shape {shape} contradict each other: taken as inverted"
        )
    missing = [k for k in ("SamplesPerPixel", "PixelRepresentation", "BitsStored") if value_of(ds, k) is None]
    return (*notes, *(f"{keyword} is missing: taken as {_default(ds, keyword)}" for keyword in missing))


def decode(ds: Dataset, *, maximum_pixels: int = MAXIMUM_PIXELS) -> Stored:
    """Decode the stored values of a single-frame image.

    Parameters
    ----------
    ds
        Data set with an Image Pixel module (PS3.3 section C.7.6.3), in any transfer syntax.
    maximum_pixels
        Limit of Rows x Columns, of the header and of the compressed stream itself.

    Returns
    -------
    numpy.ndarray
        (H, W) for one sample per pixel, (H, W, 3) for colour in RGB; integers, 8 to 16 bits, signed as stored.
        Bits outside Bits Stored are cleared.

    Raises
    ------
    CannotDecodeError
        If pixel data are missing, too short, too many, of several frames, of another depth, or undecodable.
    """
    rows, columns = positive(ds, "Rows"), positive(ds, "Columns")
    check_size(ds, "the header claims", rows, columns, maximum_pixels)
    frames = integer(ds, "NumberOfFrames", 1)
    if frames != 1:
        raise cannot_decode(ds, f"Number of Frames is {frames}; a projection radiograph has one frame")
    allocated = positive(ds, "BitsAllocated")
    stored = integer(ds, "BitsStored", allocated)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise cannot_decode(
            ds, f"{stored} bits stored in {allocated} allocated; 8 or 16 allocated bits can be read"
        )
    if not (isinstance(value_of(ds, "PixelData"), bytes) and ds.PixelData):
        raise cannot_decode(ds, "there are no Pixel Data; an image to be scored carries them")
    module = _image_pixel_module(ds)
    syntax = module.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        check_stream(ds, module, maximum_pixels)
    high_bit = integer(ds, "HighBit", stored - 1)
    shifted = not syntax.is_encapsulated and high_bit != stored - 1 and stored - 1 <= high_bit < allocated
    if shifted:
        module.BitsStored, module.HighBit, module.PixelRepresentation = allocated, allocated - 1, 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = decode_extended(module) if needs_gdcm(module) else pixel_array(module)
    except _DECODER_ERRORS as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        detail = " ".join(lines[-1].split())[:200]
        cause = MemoryError(detail) if _NO_MEMORY.search(str(error)) else error
        raise cannot_decode(ds, f"the pixel data in {syntax.name} cannot be decoded: {detail}") from cause
    if values.shape[:2] != (rows, columns):
        raise cannot_decode(ds, f"decoded to {values.shape}; the header says {rows} x {columns}")
    if shifted:
        values = _take_bits(values, stored, high_bit, signed=integer(ds, "PixelRepresentation", 0) == 1)
    return values


def to_grey(
    ds: Dataset,
    *,
    window: Window = "none",
    rescale: Rescale = "minmax",
    maximum_pixels: int = MAXIMUM_PIXELS,
) -> Grey:
    """Return the image as grey values where brighter means denser.

    Stored values -> Modality LUT or rescale -> VOI LUT or window (if asked) -> inversion -> range [0, 1].

    Parameters
    ----------
    ds
        Data set of a single-frame grey image, or of an RGB image that is grey in fact.
    window
        "none" leaves the values; "voi" applies the first VOI LUT or window of the image (PS3.3 section
        C.11.2), and leaves the values where it has none.
    rescale
        "minmax" stretches the unpadded image to [0, 1]; "none" divides by the full range of Bits Stored.
    maximum_pixels
        As for `decode`.

    Returns
    -------
    numpy.ndarray
        (H, W) float32 in [0, 1]. Padded pixels (PS3.3 section C.7.5.1.1.2) take no part in the range and are 0.

    Raises
    ------
    CannotDecodeError
        As for `decode`, and if the image is colour, constant, or nothing but padding.
    """
    values, padded, bounds = _values(ds, maximum_pixels)
    if window == "voi":
        values, bounds = _voi(ds, values, bounds)
    least, most = _extremes(ds, values, padded)
    if not np.isfinite([least, most]).all() or least == most:
        raise cannot_decode(
            ds, f"every pixel has the value {least:g}; an image to be scored has a range of values"
        )
    if rescale == "minmax":
        bounds = (least, most)
    grey = np.clip((values - np.float32(bounds[0])) / np.float32(bounds[1] - bounds[0]), 0.0, 1.0)
    if text(ds, "PhotometricInterpretation") == "MONOCHROME1" or text(ds, "PresentationLUTShape") == "INVERSE":
        grey = np.float32(1.0) - grey
    if padded is not None:
        grey[padded] = 0.0
    return np.asarray(grey, dtype=np.float32)


def value_range(ds: Dataset, *, maximum_pixels: int = MAXIMUM_PIXELS) -> tuple[float, float]:
    """Return the smallest and the largest value after the Modality LUT, padded pixels left out; errors as `to_grey`."""
    values, padded, _ = _values(ds, maximum_pixels)
    return _extremes(ds, values, padded)


def _values(ds: Dataset, maximum_pixels: int) -> tuple[Grey, Mask | None, tuple[float, float]]:
    """Return the values after the Modality LUT, which of them are padding, and the range they could have."""
    stored = decode(ds, maximum_pixels=maximum_pixels)
    if stored.ndim == 3:
        stored = _luminance(ds, stored)
    padded = padded_pixels(ds, stored)
    values, bounds = _modality(ds, stored, _stored_range(ds))
    return values, padded, bounds


def _extremes(ds: Dataset, values: Grey, padded: Mask | None) -> tuple[float, float]:
    inside = values if padded is None else values[~padded]
    if inside.size == 0:
        raise cannot_decode(ds, "every pixel is padding; nothing is left to score")
    return float(inside.min()), float(inside.max())


def _image_pixel_module(ds: Dataset) -> Dataset:
    """Return the attributes that decoding needs, with the gaps filled; pixel data are shared, not copied."""
    module = Dataset()
    module.file_meta = FileMetaDataset()
    syntax = getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None:
        implicit, little = ds.original_encoding
        plain = ExplicitVRBigEndian if little is False else ExplicitVRLittleEndian
        syntax = ImplicitVRLittleEndian if implicit and little is not False else plain
    module.file_meta.TransferSyntaxUID = syntax
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PixelRepresentation"):
        setattr(module, keyword, integer(ds, keyword, _default(ds, keyword)))
    module.HighBit = module.BitsStored - 1
    colour = module.SamplesPerPixel == 3
    stated = text(ds, "PhotometricInterpretation")
    known = stated in (_COLOURS if colour else _GREYS)
    module.PhotometricInterpretation = stated if known else ("RGB" if colour else "MONOCHROME2")
    if colour:
        module.PlanarConfiguration = integer(ds, "PlanarConfiguration", 0)
    module["PixelData"] = ds["PixelData"]
    return module


_GREYS = ("MONOCHROME1", "MONOCHROME2")
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def _default(ds: Dataset, keyword: str) -> int:
    return {"SamplesPerPixel": 1, "PixelRepresentation": 0}.get(keyword, integer(ds, "BitsAllocated", 0))


def _take_bits(values: Stored, stored: int, high_bit: int, *, signed: bool) -> Stored:
    bits = (values.astype(np.int32) >> (high_bit + 1 - stored)) & ((1 << stored) - 1)
    if signed:
        bits = np.where(bits >= 1 << (stored - 1), bits - (1 << stored), bits)
    return bits.astype(np.int16 if signed else np.uint16)


def _stored_range(ds: Dataset) -> tuple[float, float]:
    bits = integer(ds, "BitsStored", integer(ds, "BitsAllocated", 16))
    if integer(ds, "PixelRepresentation", 0) == 1:
        return -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
    return 0.0, float((1 << bits) - 1)


def _luminance(ds: Dataset, rgb: Stored) -> Stored:
    if text(ds, "PhotometricInterpretation") == "PALETTE COLOR" or rgb.shape[2] != 3:
        raise cannot_decode(ds, f"{rgb.shape[2]} samples per pixel; a grey image has 1, or 3 equal ones")
    channels = rgb.astype(np.int32)
    spread = int((channels.max(axis=2) - channels.min(axis=2)).max())
    if spread > _COLOUR_TOLERANCE:
        raise cannot_decode(
            ds, f"the image is in colour (channels differ by up to {spread}); a radiograph is grey"
        )
    return np.asarray((channels @ np.array([299, 587, 114], dtype=np.int32) + 500) // 1000)


def _modality(ds: Dataset, stored: Stored, bounds: tuple[float, float]) -> tuple[Grey, tuple[float, float]]:
    """Apply the Modality LUT or the rescale (PS3.3 section C.11.1); `bounds` go the same way."""
    if items(ds, "ModalityLUTSequence"):
        try:
            _, _, bits = ds.ModalityLUTSequence[0].LUTDescriptor
            return apply_modality_lut(stored, ds).astype(np.float32), (0.0, float((1 << (bits or 16)) - 1))
        except _DECODER_ERRORS as error:
            raise cannot_decode(ds, f"the Modality LUT cannot be applied: {error}") from error
    slope, intercept = number(ds, "RescaleSlope", 1.0), number(ds, "RescaleIntercept", 0.0)
    if slope == 0.0:
        raise cannot_decode(ds, "Rescale Slope is 0; it maps every value to the same one")
    ends = sorted((bounds[0] * slope + intercept, bounds[1] * slope + intercept))
    values = stored.astype(np.float32)
    if (slope, intercept) != (1.0, 0.0):
        values = values * np.float32(slope) + np.float32(intercept)
    return values, (ends[0], ends[1])


def _voi(ds: Dataset, values: Grey, bounds: tuple[float, float]) -> tuple[Grey, tuple[float, float]]:
    if items(ds, "VOILUTSequence"):
        try:
            _, _, bits = ds.VOILUTSequence[0].LUTDescriptor
            mapped = apply_voi_lut(np.rint(values).astype(np.int32), ds, index=0, prefer_lut=True)
            return mapped.astype(np.float32), (0.0, float((1 << (bits or 16)) - 1))
        except _DECODER_ERRORS as error:
            raise cannot_decode(ds, f"the VOI LUT cannot be applied: {error}") from error
    if value_of(ds, "WindowCenter") is None or value_of(ds, "WindowWidth") is None:
        return values, bounds
    centre, width = number(ds, "WindowCenter", 0.0), number(ds, "WindowWidth", 0.0)
    function = text(ds, "VOILUTFunction") or "LINEAR"
    if width < 1.0 if function == "LINEAR" else width <= 0.0:
        raise cannot_decode(ds, f"Window Width is {width:g}; {function} needs at least 1, or more than 0")
    if function == "SIGMOID":
        return (1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))).astype(np.float32), (0.0, 1.0)
    half = 0.5 if function == "LINEAR" else 0.0
    span = max(width - 2 * half, 1e-6)
    out = np.clip((values - np.float32(centre - half)) / np.float32(span) + np.float32(0.5), 0.0, 1.0)
    return out.astype(np.float32), (0.0, 1.0)
