"""Data sets that lie about themselves: read within bounds, or refused with the reason."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import pack

import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.pipeline.elements import MAXIMUM_DEPTH, MAXIMUM_ELEMENTS
from dicom_node.pipeline.headers import LONGEST_VALUE, MAXIMUM_HEADER, read_dataset, read_header, text_of
from dicom_node.receive.staging import Command, file_header
from tests.unit.report.builders import CR

UNDEFINED = 0xFFFFFFFF


def explicit(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    head = pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + b"\0\0" + pack("<L", size) + value
    return head + pack("<H", size) + value


def implicit(tag: int, value: bytes, length: int | None = None) -> bytes:
    return pack("<HHL", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


IDENTITY = b"".join(
    (
        explicit(0x00080016, b"UI", CR.encode() + b"\0"),
        explicit(0x00080018, b"UI", b"1.2.3\0"),
        explicit(0x00100010, b"PN", b"Doe^Jane"),
    )
)
PLACE = explicit(0x0020000D, b"UI", b"1.2\0") + explicit(0x0020000E, b"UI", b"1.2.4\0")
PIXELS = explicit(0x7FE00010, b"OW", b"\1\2\3\4")
OPEN = explicit(0x00400555, b"SQ", b"", UNDEFINED) + pack("<HHL", 0xFFFE, 0xE000, UNDEFINED)
CLOSE = pack("<HHL", 0xFFFE, 0xE00D, 0) + pack("<HHL", 0xFFFE, 0xE0DD, 0)


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[object]:
    """Write a data set as the receiver would stage it."""

    def write(content: bytes, syntax: str = ExplicitVRLittleEndian) -> Path:
        path = tmp_path / "staged.dcm"
        path.write_bytes(file_header(Command(CR, "1.2.3", syntax), "CR1") + content)
        return path

    return write


def test_what_identifies_an_image_and_what_a_report_copies_is_read(staged):
    header = read_header(staged(IDENTITY + explicit(0x00091001, b"LO", b"private ") + PLACE + PIXELS))
    assert [text_of(header, k) for k in ("SOPClassUID", "StudyInstanceUID", "DeviceUID")] == [CR, "1.2", ""]
    assert header.PatientName == "Doe^Jane"
    assert 0x00091001 not in header
    assert 0x7FE00010 not in header


def test_a_deflated_header_is_inflated_no_further_than_it_goes(staged):
    engine = zlib.compressobj(9, wbits=-15)
    bomb = engine.compress(IDENTITY + PLACE + explicit(0x7FE00010, b"OW", b"", 1 << 30))
    for _ in range(1024):
        bomb += engine.compress(bytes(1 << 20))
    path = staged(bomb + engine.flush(), DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 2_000_000
    tracemalloc.start()
    header = read_header(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert text_of(header, "StudyInstanceUID") == "1.2"
    assert most < 1_000_000


def test_a_deflated_header_without_end_is_refused(staged):
    engine = zlib.compressobj(9, wbits=-15)
    bomb = engine.compress(IDENTITY + explicit(0x00091001, b"OB", b"", 1 << 30))
    for _ in range(MAXIMUM_HEADER >> 20):
        bomb += engine.compress(bytes(1 << 20))
    path = staged(bomb + engine.flush(), DeflatedExplicitVRLittleEndian)
    with pytest.raises(CannotUnderstandError, match=f"more than {MAXIMUM_HEADER} bytes"):
        read_header(path)


def test_bytes_that_are_not_deflated_are_refused(staged):
    with pytest.raises(CannotUnderstandError, match="not deflated"):
        read_header(staged(b"\xff" * 100, DeflatedExplicitVRLittleEndian))


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("depth", [MAXIMUM_DEPTH + 1, 100_000])
def test_deep_nests_are_refused_and_not_followed(depth, closed, staged):
    path = staged(IDENTITY + OPEN * depth + (CLOSE * depth if closed else b"") + PLACE)
    for read in (read_header, read_dataset):
        with pytest.raises(CannotUnderstandError, match=f"nested deeper than {MAXIMUM_DEPTH}"):
            read(path)


def test_a_nest_that_real_objects_have_is_stepped_over(staged):
    path = staged(IDENTITY + OPEN * 20 + CLOSE * 20 + PLACE + PIXELS)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"
    assert len(read_dataset(path)[0x00400555].value) == 1


def test_a_nest_behind_what_is_needed_does_not_matter_to_the_header(staged):
    assert text_of(read_header(staged(IDENTITY + PLACE + OPEN * 1000)), "StudyInstanceUID") == "1.2"


def test_too_many_elements_are_refused(staged):
    path = staged(IDENTITY + explicit(0x00091001, b"SH", b"") * (MAXIMUM_ELEMENTS + 1) + PLACE)
    with pytest.raises(CannotUnderstandError, match=f"more than {MAXIMUM_ELEMENTS} elements"):
        read_header(path)


def test_half_a_gigabyte_of_private_elements_is_stepped_over(staged):
    path = staged(IDENTITY)
    with path.open("r+b") as file:
        file.seek(0, 2)
        for _ in range(50):
            file.write(explicit(0x00091001, b"OB", b"", 10_000_000))
            file.seek(10_000_000, 1)  # a hole: nothing is written
        file.write(PLACE)
    tracemalloc.start()
    header = read_header(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert text_of(header, "StudyInstanceUID") == "1.2"
    assert most < 1_000_000


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x80000000, 1001])
def test_a_length_beyond_the_end_ends_the_data_set(length, staged):
    path = staged(IDENTITY + explicit(0x00091001, b"OB", b"ab", length) + PLACE)
    assert text_of(read_header(path), "StudyInstanceUID") == ""
    assert read_dataset(path)[0x00091001].value is not None


def test_pixel_data_that_claim_four_gigabytes_are_what_is_there(staged):
    path = staged(IDENTITY + PLACE + explicit(0x7FE00010, b"OW", b"\1\2", 0xFFFFFFF0))
    assert read_dataset(path).PixelData == b"\1\2"


def test_file_meta_inside_the_data_set_is_passed_over_and_changes_nothing(staged):
    meta = explicit(0x00020010, b"UI", DeflatedExplicitVRLittleEndian.encode())
    path = staged(meta + IDENTITY + PLACE + PIXELS)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"
    assert read_dataset(path).file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_command_inside_the_data_set_is_passed_over(staged):
    path = staged(implicit(0x00000002, CR.encode()) + IDENTITY + PLACE)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"


def test_explicit_vr_where_implicit_was_negotiated_is_understood(staged):
    path = staged(IDENTITY + PLACE + PIXELS, ImplicitVRLittleEndian)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"
    assert read_dataset(path).PixelData == b"\1\2\3\4"


def test_implicit_vr_where_explicit_was_negotiated_is_understood(staged):
    plain = implicit(0x00080016, CR.encode()) + implicit(0x00080018, b"1.2.3\0")
    plain += implicit(0x0020000D, b"1.2\0") + implicit(0x0020000E, b"1.2.4\0")
    assert text_of(read_header(staged(plain)), "SeriesInstanceUID") == "1.2.4"


def test_another_byte_order_than_negotiated_is_not_understood(staged):
    assert text_of(read_header(staged(IDENTITY + PLACE, ExplicitVRBigEndian)), "StudyInstanceUID") == ""


def test_an_element_that_stands_twice_counts_the_second_time(staged):
    path = staged(IDENTITY + explicit(0x0020000D, b"UI", b"9.9\0") + PLACE)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"
    assert read_dataset(path).StudyInstanceUID == "1.2"


def test_a_long_text_is_cut_and_a_long_sequence_left_out(staged):
    comments = implicit(0x00104000, b"x" * (2 * LONGEST_VALUE))
    others = implicit(0x00101002, b"\0" * (2 * LONGEST_VALUE))
    start = implicit(0x00080016, CR.encode()) + others + comments
    header = read_header(staged(start, ImplicitVRLittleEndian))
    assert len(header.get_item(0x00104000).value) == LONGEST_VALUE
    assert header[0x00101002].VR == "OB"


def test_a_value_that_should_be_a_text_and_is_a_sequence_is_no_text(staged):
    wrong = explicit(0x0020000D, b"SQ", b"", UNDEFINED) + pack("<HHL", 0xFFFE, 0xE0DD, 0)
    header = read_header(staged(IDENTITY + wrong + explicit(0x0020000E, b"UI", b"1.2.4\0")))
    assert text_of(header, "StudyInstanceUID") == ""
    assert text_of(header, "SeriesInstanceUID") == "1.2.4"


def test_fragments_in_a_header_are_stepped_over(staged):
    fragments = pack("<HHL", 0xFFFE, 0xE000, 4) + b"abcd" + pack("<HHL", 0xFFFE, 0xE0DD, 0)
    path = staged(IDENTITY + explicit(0x00091001, b"OB", b"", UNDEFINED) + fragments + PLACE)
    assert text_of(read_header(path), "StudyInstanceUID") == "1.2"


def test_zeros_behind_the_pixels_are_padding(staged):
    path = staged(IDENTITY + PLACE + PIXELS + bytes(2_000_000))
    assert read_dataset(path).PixelData == b"\1\2\3\4"


def test_a_character_set_that_is_no_text_does_not_hide_the_image(staged):
    path = staged(explicit(0x00080005, b"CS", b"\0\0\1\0IR 100") + IDENTITY + PLACE)
    assert read_dataset(path).StudyInstanceUID == "1.2"


@pytest.mark.parametrize(
    "content", [b"", b"DICM", bytes(140), bytes(128) + b"DICM\2\0\0\0UL\4\0\xff\xff\xff\xff"]
)
def test_a_file_without_the_nodes_own_meta_is_refused(content, tmp_path):
    path = tmp_path / "bare.dcm"
    path.write_bytes(content)
    with pytest.raises(CannotUnderstandError, match="File Meta Information"):
        read_header(path)
