"""What a library raises on bytes that are not what their types and lengths say. Standard library only."""

from __future__ import annotations

import struct

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""They share no base class. pydicom has more of its own: `InvalidDicomError`, and `BytesLengthException`."""
