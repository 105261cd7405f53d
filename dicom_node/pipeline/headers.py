"""Reads an image without believing it: time and memory are bounded, whatever its data set says of itself.

Owns the two ways in which the pipeline reads one: `read_header` (what says where it belongs, and what a report copies)
and `read_dataset` (all of it, for the score). Both begin where the node's own File Meta Information ends and believe
its transfer syntax, so that nothing inside the data set passes for either. Sequences are left as bytes; pydicom parses
one when it is looked at.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset as parse
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import STR_VR, VR

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.unreadable import UNREADABLE
from dicom_node.pipeline.elements import UNDEFINED, Element, Inflated, Source, Walk
from dicom_node.report.header import READ

READ_ERRORS = (*UNREADABLE, BytesLengthException, InvalidDicomError, MemoryError)
"""What pydicom raises on bytes that are not what their lengths say; they share no base class."""

IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

LONGEST_VALUE = 64 * 1024
"""Bytes of a value that a header keeps; the VRs that a report copies hold fewer."""
LONGEST_SEQUENCE = 1024 * 1024
"""Bytes of a sequence that a data set keeps: a VOI LUT of 65536 entries has 128 kB."""
MAXIMUM_HEADER = 32 * 1024 * 1024
"""Inflated bytes of a deflated header."""
MAXIMUM_DATASET = 256 * 1024 * 1024
"""Inflated bytes of a deflated data set: 100 million pixels of 16 bits, and what stands before them."""

_WANTED = frozenset(int(Tag(keyword)) for keyword in (*READ, *IDENTIFYING, "DeviceUID"))
_NEEDED = frozenset(int(Tag(keyword)) for keyword in IDENTIFYING)
_PIXELS, _PADDING = 0x7FE00000, 0xFFFC0000
_PIXEL_DATA, _CHARACTER_SET = Tag("PixelData"), Tag("SpecificCharacterSet")
_PREFIX = b"DICM\x02\x00\x00\x00UL\x04\x00"


def read_header(path: Path, also: Collection[str] = ()) -> Dataset:
    """Read the elements that say what an image is, where it belongs, and what a report may copy of it.

    Reading ends at the pixel data, or earlier: behind the last of these elements once the image is identified. Where
    an element stands twice, the later one counts.

    Parameters
    ----------
    path
        A Part 10 file whose File Meta Information this node wrote.
    also
        Keywords of further elements that are wanted.

    Returns
    -------
    Dataset
        Elements as they were sent, cut at `LONGEST_VALUE`. In the place of a sequence that is longer, and of a value
        of undefined length that should be none, stands a NUL byte with VR OB.

    Raises
    ------
    CannotUnderstandError
        If the bytes are no data set, or beyond the limits of `dicom_node.pipeline.elements`.
    OSError
        If the file cannot be read.
    """
    with _opened(path, MAXIMUM_HEADER) as held:
        wanted = _WANTED.union(int(Tag(keyword)) for keyword in also)
        last = max(wanted)
        kept: dict[BaseTag, DataElement | RawDataElement] = {}
        while (element := held.walk.next()) is not None:
            tag = element.tag
            if tag >= _PIXELS or (tag > last and kept.keys() >= _NEEDED):
                break
            if tag not in wanted:
                held.walk.step_over(element)
                continue
            if _is_sequence(element):
                content = held.whole(LONGEST_VALUE, element)
            elif element.length == UNDEFINED:
                content = held.whole(0, element)
            else:
                content = held.defined(LONGEST_VALUE, element)
            kept[BaseTag(tag)] = (
                DataElement(tag, "OB", b"\0") if content is None else held.raw(element, content)
            )
    return held.dataset(kept)


def read_dataset(path: Path) -> FileDataset:
    """Read a whole image.

    Returns
    -------
    FileDataset
        Every element up to the padding at the end, except sequences of more than `LONGEST_SEQUENCE` bytes and a
        Specific Character Set that is no text, since pydicom asks for it whatever is read.

    Raises
    ------
    CannotUnderstandError, OSError
        As `read_header`.
    """
    with _opened(path, MAXIMUM_DATASET) as held:
        kept: dict[BaseTag, DataElement | RawDataElement] = {}
        while (element := held.walk.next()) is not None and element.tag < _PADDING:
            if element.tag == 0 and _PIXEL_DATA in kept:
                break  # zeros to fill a block
            most = MAXIMUM_DATASET if element.tag >= _PIXELS else LONGEST_SEQUENCE
            if element.length != UNDEFINED and not _is_sequence(element):
                content: bytes | None = held.defined(held.size, element)
            else:
                content = held.whole(most, element)
            if content is not None and not (element.tag == _CHARACTER_SET and _no_text(content)):
                kept[BaseTag(element.tag)] = held.raw(element, content)
    return FileDataset(
        None,  # type: ignore[arg-type] # there is no file to go back to
        held.dataset(kept),
        file_meta=held.meta,
        is_implicit_VR=held.walk.implicit,
        is_little_endian=held.walk.little,
    )


def text_of(header: Dataset, keyword: str) -> str:
    """Return a UID, a code or a number out of `read_header` without its padding, read as Latin-1.

    "" where it is missing, or its VR is none of a text.
    """
    element: Any = header.get_item(Tag(keyword))
    if element is None or element.VR not in (None, VR.UN, *STR_VR):
        return ""
    return (element.value or b"").decode("latin_1").strip(" \0")


@dataclass(frozen=True, slots=True)
class _Held:
    """An open image: `size` is the most that any of its values can have."""

    meta: FileMetaDataset
    source: Source
    size: int
    walk: Walk

    def defined(self, most: int, element: Element) -> bytes:
        """Return the first bytes of the value and go behind it."""
        start = self.source.tell()
        content = self.source.read(min(element.length, most, self.size))
        self.source.seek(start + element.length)
        return content

    def whole(self, most: int, element: Element) -> bytes | None:
        """Go behind the value; return it without its delimiter, or None where it is longer than `most`."""
        start = self.source.tell()
        self.walk.step_over(element)
        end = self.source.tell()
        length = end - start - (8 if element.length == UNDEFINED else 0)
        if not 0 <= length <= most:
            return None
        self.source.seek(start)
        content = self.source.read(length)
        self.source.seek(end)
        return content

    def raw(self, element: Element, content: bytes) -> RawDataElement:
        vr = "SQ" if element.length == UNDEFINED and element.tag < _PIXELS else element.vr or None
        return RawDataElement(
            BaseTag(element.tag), vr, element.length, content, 0, not element.vr, self.walk.little
        )

    def dataset(self, kept: dict[BaseTag, DataElement | RawDataElement]) -> Dataset:
        ds = Dataset(kept)
        ds.set_original_encoding(self.walk.implicit, self.walk.little, "iso8859")
        return ds


@contextmanager
def _opened(path: Path, most_inflated: int) -> Iterator[_Held]:
    with path.open("rb") as file:
        meta = _meta(file)
        syntax = str(meta.get("TransferSyntaxUID", ""))
        if syntax == DeflatedExplicitVRLittleEndian:
            source: Source = Inflated(file, most_inflated)
            size = most_inflated
        else:
            source, size = file, os.fstat(file.fileno()).st_size
        _pass_meta(source)
        walk = Walk(source, implicit=syntax == ImplicitVRLittleEndian, little=syntax != ExplicitVRBigEndian)
        yield _Held(meta, source, size, walk)


def _is_sequence(element: Element) -> bool:
    known = dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else ""
    return "SQ" in (element.vr, known if element.vr in ("", "UN") else "")


def _no_text(content: bytes) -> bool:
    return any(not 0x20 <= byte <= 0x7E for byte in content.rstrip(b"\0"))


def _meta(file: BinaryIO) -> FileMetaDataset:
    """Return File Meta Information and leave the file behind it, where its group length says (PS3.10 section 7.1)."""
    start = file.read(128 + len(_PREFIX) + 4)
    length = int.from_bytes(start[-4:], "little")
    if start[128:-4] != _PREFIX or length > os.fstat(file.fileno()).st_size:
        raise CannotUnderstandError("the file does not begin with File Meta Information that states its length")
    try:
        return FileMetaDataset(parse(BytesIO(file.read(length)), False, True))
    except READ_ERRORS as error:
        raise CannotUnderstandError(
            f"the File Meta Information cannot be read ({type(error).__name__})"
        ) from error


def _pass_meta(source: Source) -> None:
    """Step over File Meta Information and commands that a peer put into the data set; at most what they can hold."""
    for _ in range(64):
        here = source.tell()
        head = source.read(4)
        source.seek(here)
        if len(head) < 4 or head[:2] not in (b"\x02\x00", b"\x00\x00"):
            return
        walk = Walk(source, implicit=head[:2] == b"\x00\x00", little=True)
        element = walk.next()
        if element is None:
            return
        walk.step_over(element)
