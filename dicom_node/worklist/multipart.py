"""Takes a multipart/related body apart as it comes (RFC 2046 5.1, RFC 2387), in bounded memory. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email.message import Message

LARGEST_HEADER = 8 * 1024


class MultipartError(ValueError):
    """The body is not what its boundary says; the text says why."""


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type names.

    Raises
    ------
    MultipartError
        If it is not multipart/related, or has no boundary of 1 to 70 characters.
    """
    message = Message()
    message["Content-Type"] = content_type[:1000]
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related":
        raise MultipartError("it is not multipart/related")
    if not isinstance(boundary, str) or not 1 <= len(boundary) <= 70 or not boundary.isascii():
        raise MultipartError("it names no boundary")
    return boundary.encode("ascii")


def parts(chunks: Iterable[bytes], boundary: bytes) -> Iterator[bytes | None]:
    """Yield the contents of the parts in pieces, and None after the last piece of each.

    Raises
    ------
    MultipartError
        If the body ends before its closing boundary, or a part's header has no end within `LARGEST_HEADER` bytes.
    """
    source = iter(chunks)
    marker = b"\r\n--" + boundary
    data = bytearray(b"\r\n")
    while (at := data.find(marker)) < 0:  # the preamble
        del data[: max(0, len(data) - len(marker))]
        data += _next(source)
    del data[: at + len(marker)]
    while True:
        while len(data) < 2:
            data += _next(source)
        if data[:2] == b"--":
            return
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > LARGEST_HEADER:
                raise MultipartError("a part's header has no end")
            data += _next(source)
        del data[: end + 4]
        while (at := data.find(marker)) < 0:
            sure = len(data) - len(marker)
            if sure > 0:
                yield bytes(data[:sure])
                del data[:sure]
            data += _next(source)
        if at:
            yield bytes(data[:at])
        del data[: at + len(marker)]
        yield None


def _next(source: Iterator[bytes]) -> bytes:
    for chunk in source:
        if chunk:
            return chunk
    raise MultipartError("it ends before its last boundary")
