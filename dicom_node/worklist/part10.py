"""Tells a Part 10 file's header from its data set while it comes in pieces (PS3.10 section 7.1). Pure; bounded."""

from __future__ import annotations

from io import BytesIO

from pydicom.filereader import read_dataset

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.ids import check_uid
from dicom_node.worklist.found import BROKEN
from dicom_node.worklist.intake import Named

LARGEST_META = 64 * 1024
_START = 128 + 4 + 12
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"


class Header:
    """Gathers the bytes of preamble and File Meta Information; what comes after them is the data set."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.named: Named | None = None

    def feed(self, piece: bytes) -> bytes:
        """Take a piece; return what of it belongs to the data set, b"" while the header is not whole.

        Raises
        ------
        CannotUnderstandError, InvalidIdentifierError
            If it is no Part 10 file, or its File Meta Information does not name class, instance and syntax.
        """
        if self.named is not None:
            return piece
        self._held += piece
        if len(self._held) < _START:
            return b""
        if self._held[128:132] != b"DICM" or self._held[132:140] != _GROUP_LENGTH:
            raise CannotUnderstandError(
                "what came is no Part 10 file with the length of its File Meta Information"
            )
        end = _START + int.from_bytes(self._held[140:144], "little")
        if end > LARGEST_META:
            raise CannotUnderstandError(f"File Meta Information of more than {LARGEST_META} bytes")
        if len(self._held) < end:
            return b""
        self.named = _named(bytes(self._held[_START:end]))
        rest = bytes(self._held[end:])
        self._held.clear()
        return rest


def _named(encoded: bytes) -> Named:
    try:
        meta = read_dataset(BytesIO(encoded), is_implicit_VR=False, is_little_endian=True)
        values = [
            str(meta.get(keyword, ""))
            for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
        ]
    except BROKEN as error:
        raise CannotUnderstandError(f"File Meta Information cannot be read ({type(error).__name__})") from error
    return Named(
        check_uid(values[0], "Media Storage SOP Class UID"),
        check_uid(values[1], "Media Storage SOP Instance UID"),
        check_uid(values[2], "Transfer Syntax UID"),
    )
