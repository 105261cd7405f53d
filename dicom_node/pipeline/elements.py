"""Walks the bytes of a data set that may be hostile: bounded in depth, elements and inflated bytes, never recursing.

Owns the encoding of data elements (PS3.5 chapter 7 and annex A) as far as it takes to step over them. Knows neither
which elements matter nor what their values mean. pydicom reads well-meant files; it recurses into every sequence of
undefined length, inflates a whole data set at once, and believes every length.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct
from typing import BinaryIO, Protocol

from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from dicom_node.domain.errors import CannotUnderstandError

MAXIMUM_DEPTH = 64
"""Sequences within sequences. The deepest of the standard's own objects have about ten."""
MAXIMUM_ELEMENTS = 100_000
"""Elements and items stepped over one by one; what has a defined length is stepped over whole, whatever is inside."""

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_DELIMITER, SEQUENCE_DELIMITER = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_CHUNK = 64 * 1024


class Source(Protocol):
    """What elements are read from: a file, or something that behaves like one."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102
    def seek(self, position: int, /) -> int: ...  # noqa: D102
    def tell(self) -> int: ...  # noqa: D102


class Inflated:
    """The inflated bytes of a deflated data set (PS3.5 section A.5), inflated only as far as they are asked for.

    Parameters
    ----------
    file
        Stands where the deflated bytes begin.
    limit
        How many inflated bytes are held at most.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._engine = zlib.decompressobj(-zlib.MAX_WBITS)
        self._held = bytearray()
        self._at = 0

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, or fewer at the end of the data set.

        Raises
        ------
        CannotUnderstandError
            If the bytes are no deflated ones, or more than `limit` would have to be inflated.
        """
        self._reach(self._at + size)
        piece = bytes(self._held[self._at : self._at + size])
        self._at += len(piece)
        return piece

    def seek(self, position: int, /) -> int:
        """Go to a position; nothing is inflated before something is read there."""
        self._at = position
        return position

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def _reach(self, end: int) -> None:
        while len(self._held) < end and not self._engine.eof:
            if len(self._held) >= self._limit:
                raise CannotUnderstandError(
                    f"the deflated data set has more than {self._limit} bytes where at most that many are read"
                )
            deflated = self._engine.unconsumed_tail or self._file.read(_CHUNK)
            if not deflated:
                return
            room = min(_CHUNK, self._limit - len(self._held))
            try:
                self._held += self._engine.decompress(deflated, room)
            except zlib.error as error:
                raise CannotUnderstandError(
                    "the data set is not deflated as its transfer syntax says"
                ) from error


@dataclass(frozen=True, slots=True)
class Element:
    """Head of a data element. `vr` is "" where none is written (implicit VR, items and delimiters)."""

    tag: int
    vr: str
    length: int


class Walk:
    """Steps through a data set element by element.

    Parameters
    ----------
    source
        Stands at the first element.
    implicit, little
        The encoding that the transfer syntax names. Where the first element shows another VR encoding, that one is
        taken, since some modalities mistake it.
    """

    def __init__(self, source: Source, *, implicit: bool, little: bool) -> None:
        self._source = source
        self.little = little
        order = "<" if little else ">"
        self._pair, self._long, self._short = Struct(order + "HH"), Struct(order + "L"), Struct(order + "H")
        self._left = MAXIMUM_ELEMENTS
        self.implicit = self._seen_implicit(implicit)

    def next(self, implicit: bool | None = None) -> Element | None:
        """Return the head of the element that begins here, the source standing at its value; None at the end.

        Raises
        ------
        CannotUnderstandError
            After `MAXIMUM_ELEMENTS`.
        """
        head = self._source.read(8)
        if len(head) < 8:
            return None
        self._left -= 1
        if self._left < 0:
            raise CannotUnderstandError(f"the data set has more than {MAXIMUM_ELEMENTS} elements; send fewer")
        group, number = self._pair.unpack(head[:4])
        tag, vr = group << 16 | number, head[4:6]
        if (self.implicit if implicit is None else implicit) or group == 0xFFFE or not _is_vr(vr):
            return Element(tag, "", self._long.unpack(head[4:])[0])
        name = vr.decode("ascii")
        if name not in EXPLICIT_VR_LENGTH_32:
            return Element(tag, name, self._short.unpack(head[6:])[0])
        length = self._source.read(4)
        return Element(tag, name, self._long.unpack(length)[0]) if len(length) == 4 else None

    def step_over(self, element: Element) -> None:
        """Go to the end of the value of the element whose head was read last.

        Raises
        ------
        CannotUnderstandError
            If its sequences are nested deeper than `MAXIMUM_DEPTH`, or it holds what is no item.
        """
        if element.length != UNDEFINED:
            self._source.seek(self._source.tell() + element.length)
            return
        # Each entry is an open value or an open item, with whether its elements are implicit.
        inside: list[tuple[bool, bool]] = [(False, self.implicit)]
        while inside:
            in_item, implicit = inside[-1]
            found = self.next(implicit)
            if found is None:
                return
            if found.tag == SEQUENCE_DELIMITER:
                while inside.pop()[0]:  # an item that was not ended ends with its sequence
                    pass
            elif in_item and found.tag == ITEM_DELIMITER:
                inside.pop()
            elif in_item == (found.tag == ITEM):
                raise CannotUnderstandError(
                    "a value of undefined length holds what is no item; end it by a sequence delimiter"
                )
            elif found.length != UNDEFINED:
                self._source.seek(self._source.tell() + found.length)
            elif len(inside) >= 2 * MAXIMUM_DEPTH:
                raise CannotUnderstandError(f"sequences are nested deeper than {MAXIMUM_DEPTH}")
            else:
                inside.append((not in_item, implicit if in_item else self._seen_implicit(implicit)))

    def _seen_implicit(self, expected: bool) -> bool:
        here = self._source.tell()
        head = self._source.read(6)
        self._source.seek(here)
        if len(head) < 6 or self._pair.unpack(head[:4])[0] == 0xFFFE:
            return expected
        return not _is_vr(head[4:])


def _is_vr(code: bytes) -> bool:
    return all(0x41 <= letter <= 0x5A for letter in code)
