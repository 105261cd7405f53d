"""How large an image a compressed stream claims to be, read from its header alone.

Pure. The guard against a small file that asks a decoder for gigabytes; decodes nothing.
"""

from __future__ import annotations

_SEARCHED = 65536
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF markers of JPEG (ITU-T T.81 table B.1) and of JPEG-LS (T.87)."""


def codestream_size(encapsulated: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) that the first JPEG, JPEG-LS or JPEG 2000 stream claims.

    Parameters
    ----------
    encapsulated
        Value of Pixel Data in an encapsulated transfer syntax (PS3.5 section A.4), or a bare stream.

    Returns
    -------
    tuple of int, or None
        None where no such header stands in the first 64 KiB after the start of the stream (RLE has none; its
        output is bounded by the header's own Rows and Columns).
    """
    shape = codestream_shape(encapsulated)
    return shape and shape[:2]


def codestream_shape(encapsulated: bytes) -> tuple[int, int, int] | None:
    """Return (rows, columns, components) that the first stream claims; see `codestream_size`."""
    starts = [at for mark in (b"\xff\xd8\xff", b"\xff\x4f\xff\x51") if (at := encapsulated.find(mark)) >= 0]
    if not starts:
        return None
    data = encapsulated[min(starts) : min(starts) + _SEARCHED]
    if data[1] == 0x4F:
        return _jpeg2000(data)
    return _jpeg(data)


def _jpeg2000(data: bytes) -> tuple[int, int, int] | None:
    """SIZ marker segment (T.800 section A.5.1): extent minus offset of the image area."""
    if len(data) < 42:
        return None
    width, height, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    return max(height - top, 0), max(width - left, 0), int.from_bytes(data[40:42], "big")


def _jpeg(data: bytes) -> tuple[int, int, int] | None:
    at = 2
    while at + 10 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in _FRAME_HEADERS:
            rows, columns = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(rows, "big"), int.from_bytes(columns, "big"), data[at + 9]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
