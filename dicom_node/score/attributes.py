"""Reading numbers and text out of a header that may be wrong. Pure."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dicom_node.domain.errors import CannotDecodeError
from dicom_node.domain.ids import quoted_number, quoted_uid

_UNREADABLE = (
    ValueError, TypeError, ArithmeticError, LookupError, AttributeError, NotImplementedError, OSError, EOFError,
    RecursionError, struct.error,
)  # fmt: skip
"""What pydicom raises where a value is none of its VR, but for a wrong length, which a person should be told of."""


def value_of(ds: Dataset, keyword: str) -> Any:
    """Return the value as pydicom reads it; None where it is missing, no value of its VR, or a sequence."""
    value = _get(ds, keyword)
    # The items of a sequence in the place of a value may be anything, and raise when they are looked at.
    return None if isinstance(value, Sequence) else value


def items(ds: Dataset, keyword: str) -> Sequence | tuple[()]:
    """Return the items of a sequence; none where it is missing, or is no sequence."""
    value = _get(ds, keyword)
    return value if isinstance(value, Sequence) else ()


def _get(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except _UNREADABLE:
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
        raise cannot_decode(ds, f"{keyword} is {quoted_number(str(value))}; a finite number is needed")
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
    uid = str(value_of(ds, "SOPInstanceUID") or "")
    return CannotDecodeError(f"image {quoted_uid(uid) if uid else 'without SOP Instance UID'}: {seen}")
