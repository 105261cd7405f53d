"""A multipart body comes apart the same however it was cut, and never without an end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.errors import CannotUnderstandError, InvalidIdentifierError
from dicom_node.worklist.multipart import LARGEST_HEADER, MultipartError, boundary_of, parts
from dicom_node.worklist.part10 import LARGEST_META, Header
from tests.peers import CR, write_image


def _body(contents: Iterable[bytes], boundary: bytes = b"b0", preamble: bytes = b"") -> bytes:
    told = b"".join(
        b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n" + c + b"\r\n" for c in contents
    )
    return preamble + told + b"--" + boundary + b"--"


def _whole(chunks: Iterable[bytes], boundary: bytes = b"b0") -> list[bytes]:
    found, part = [], b""
    for piece in parts(chunks, boundary):
        if piece is None:
            found.append(part)
            part = b""
        else:
            part += piece
    assert part == b""
    return found


@given(
    st.lists(st.binary(max_size=60).filter(lambda c: b"--b0" not in c), max_size=4),
    st.lists(st.integers(0, 400), max_size=12),
    st.sampled_from([b"", b"\r\n", b"preamble\r\n"]),
)
def test_however_it_is_cut_the_parts_are_the_same(
    contents: list[bytes], cuts: list[int], preamble: bytes
) -> None:
    body = _body(contents, preamble=preamble)
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    assert _whole(body[a:b] for a, b in itertools.pairwise(edges)) == contents


@given(st.integers(0, 80))
def test_a_body_that_ends_too_early_is_told(cut: int) -> None:
    body = _body([b"one", b"two"])
    with pytest.raises(MultipartError, match="ends before its last boundary"):
        _whole([body[: min(cut, len(body) - 2)]])


def test_a_header_without_an_end_is_not_gathered_for_ever() -> None:
    given_out = []

    def endless() -> Iterable[bytes]:
        yield b"--b0\r\n"
        while True:
            given_out.append(1)
            yield b"X-Filler: " + b"y" * 1000

    with pytest.raises(MultipartError, match="header has no end"):
        _whole(endless())
    assert len(given_out) <= LARGEST_HEADER // 1000 + 2


@pytest.mark.parametrize(
    ("kind", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=abc', b"abc"),
        ('Multipart/Related; boundary="a b"; type="application/dicom"', b"a b"),
    ],
)
def test_the_boundary_is_the_one_that_is_named(kind: str, boundary: bytes) -> None:
    assert boundary_of(kind) == boundary


@pytest.mark.parametrize(
    "kind", ["", "text/html", "multipart/related", f"multipart/related; boundary={'a' * 71}"]
)
def test_without_a_boundary_there_is_no_multipart(kind: str) -> None:
    with pytest.raises(MultipartError):
        boundary_of(kind)


@given(st.lists(st.integers(0, 600), max_size=6))
def test_a_part_10_file_is_told_apart_however_it_comes(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("image") / "image.dcm"
    data_set = write_image(path, sop_instance_uid="1.2.3")
    content = path.read_bytes()
    edges = [0, *sorted(cuts), len(content)]
    header = Header()
    assert b"".join(header.feed(content[a:b]) for a, b in itertools.pairwise(edges)) == data_set
    assert header.named is not None
    assert (header.named.sop_class_uid, header.named.sop_instance_uid) == (CR, "1.2.3")


@pytest.mark.parametrize(
    "content",
    [
        b"<html>" + b" " * 200,
        b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + (LARGEST_META + 1).to_bytes(4, "little"),
        b"\0" * 128 + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + (4).to_bytes(4, "little") + b"\xff" * 4,
    ],
)
def test_what_is_no_part_10_file_is_refused(content: bytes) -> None:
    with pytest.raises((CannotUnderstandError, InvalidIdentifierError)):
        Header().feed(content)
