"""Reading numbers and text out of a header that may be wrong. Pure."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_node.domain.errors import CannotDecodeError


def value_of(ds: Dataset, keyword: str) -> Any:
    """Return the value as pydicom reads it; None where it is missing or no value of its VR."""
    try:
        return ds.get(keyword)
    except (ValueError, TypeError, OverflowError, NotImplementedError, struct.error):
        return None


def text(ds: Dataset, keyword: str) -> str:
    """Return the (first) value in upper case without padding, "" where it is missing."""
    every = texts(ds, keyword)
    return every[0] if every else ""


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Return every value that is not blank, in upper case without padding."""
    value = value_of(ds, keyword)
    if value is None:
        return ()
    parts = value if isinstance(value, (MultiValue, list, tuple)) else [value]
    return tuple(stripped for part in parts if (stripped := str(part).strip().upper()))


def _first(ds: Dataset, keyword: str) -> object:
    value = value_of(ds, keyword)
    if isinstance(value, MultiValue):
        return value[0] if len(value) else None
    return value


def number(ds: Dataset, keyword: str, default: float) -> float:
    """Return the (first) value, `default` where it is missing.

    Raises
    ------
    CannotDecodeError
        If it is no finite number.
    """
    value = _first(ds, keyword)
    if value is None or value == "":
        return default
    try:
        read = float(str(value))
    except ValueError:
        read = float("nan")
    if not np.isfinite(read):
        raise cannot_decode(ds, f"{keyword} is {str(value)[:40]!r}; a finite number is needed")
    return read


def integer(ds: Dataset, keyword: str, default: int) -> int:
    """Return the (first) value as an integer; see `number`."""
    return int(number(ds, keyword, default))


def positive(ds: Dataset, keyword: str) -> int:
    """Return the value.

    Raises
    ------
    CannotDecodeError
        If it is missing or not positive.
    """
    value = integer(ds, keyword, 0)
    if value <= 0:
        raise cannot_decode(ds, f"{keyword} is missing or {value}; an image needs a positive number")
    return value


def cannot_decode(ds: Dataset, seen: str) -> CannotDecodeError:
    """Return the error that says what was seen, in which image."""
    return CannotDecodeError(f"{ds.get('SOPInstanceUID', 'an image without SOP Instance UID')}: {seen}")
