"""Changes to a data set or a byte stream, as data: a list of edits can be written down, read and made again.

Structural: most edits know where elements begin and what in them a parser believes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from random import Random
from struct import pack

from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.pipeline.elements import Walk
from tests.fuzz.seeds import Seed

WANTED = (
    0x00080005, 0x00080008, 0x00080016, 0x00080018, 0x00080020, 0x00080030, 0x00080050, 0x00080051, 0x00080060,
    0x00080068, 0x00080090, 0x00080201, 0x00081032, 0x00081048, 0x00081110, 0x00082218, 0x00100010, 0x00100020,
    0x00100024, 0x00100030, 0x00100040, 0x00101001, 0x00101002, 0x00101010, 0x00104000, 0x00120063, 0x00120064,
    0x00180015, 0x00181002, 0x00181164, 0x00185101, 0x0020000D, 0x0020000E, 0x00200010, 0x00200020, 0x00200052,
    0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00280120, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x00283000, 0x00283010,
    0x00321033, 0x00380010, 0x00380500, 0x00540220, 0x7FE00010,
)  # fmt: skip
VRS = (
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"OB", b"OD", b"OF", b"OL",
    b"OV", b"OW", b"PN", b"SH", b"SL", b"SQ", b"SS", b"ST", b"SV", b"TM", b"UC", b"UI", b"UL", b"UN", b"UR", b"US",
    b"UT", b"UV", b"ZZ", b"\0\0", b"aa",
)  # fmt: skip
LENGTHS = (
    0,
    1,
    2,
    3,
    7,
    8,
    0x41,
    0x4141,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
VALUES = (
    b"", b" ", b"\0\0", b"\\", b"\\\\\\", b"^^^^^^^", b"=" * 8, b"\x1b$B", b"\x1b(B\x1b$)C\x1b", b"\xff" * 16,
    b"1e999 ", b"-1", b"nan ", b"99999999999999999999", b"0" * 64, b"1.2." + b"3" * 61, b"../../../../etc/passwd",
    b"20260230", b"2026-01-01", b"A" * 70, b"^" * 10_000, b"\\" * 10_000, b"Doe^Jane\\" * 3000, b"x" * 65_534,
    b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 192\\GB18030", b"KLINGON ", b"M\\F ", b"\0" * 64, b"\n\r\t\x07",
    b"\xe5\xb1\xb1^\xe5\xa4\xaa", b"%s%n{0}", b"'; DROP TABLE studies; --",
)  # fmt: skip


@dataclass(frozen=True)
class Edit:
    """Take `removed` bytes away at `at` and put `inserted` there."""

    at: int
    removed: int
    inserted: bytes


def apply(content: bytes, edits: list[Edit]) -> bytes:
    """Return the content with each edit made in turn."""
    for edit in edits:
        content = content[: edit.at] + edit.inserted + content[edit.at + edit.removed :]
    return content


def to_json(name: str, edits: list[Edit]) -> str:
    """Write a finding down."""
    return json.dumps({"seed": name, "edits": [[e.at, e.removed, e.inserted.hex()] for e in edits]})


def from_json(line: str) -> tuple[str, list[Edit]]:
    """Read what `to_json` wrote."""
    found = json.loads(line)
    return found["seed"], [Edit(at, removed, bytes.fromhex(text)) for at, removed, text in found["edits"]]


@dataclass(frozen=True)
class _Place:
    """An element: where its head, its length field and its value begin, and where it ends."""

    tag: int
    start: int
    length_at: int
    value: int
    end: int


class Shape:
    """Where the top-level elements of a plain data set stand, and how they are encoded."""

    def __init__(self, plain: bytes, *, implicit: bool, little: bool) -> None:
        source = BytesIO(plain)
        walk = Walk(source, implicit=implicit, little=little)
        self.implicit, self.little = walk.implicit, little
        self.places: list[_Place] = []
        start = 0
        try:
            while (element := walk.next()) is not None and element.tag < 0xFFFE0000:
                value = source.tell()
                walk.step_over(element)
                wide = not element.vr or value - start == 12
                at = value - (4 if wide else 2)
                self.places.append(_Place(element.tag, start, at, value, min(source.tell(), len(plain))))
                start = source.tell()
        except CannotUnderstandError:
            return

    def element(self, tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
        """Return an element in this encoding; `length` may lie."""
        order = "<" if self.little else ">"
        long = len(value) if length is None else length
        head = pack(order + "HH", tag >> 16, tag & 0xFFFF)
        if self.implicit:
            return head + pack(order + "L", long & 0xFFFFFFFF) + value
        if vr in (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"):
            return head + vr + b"\0\0" + pack(order + "L", long & 0xFFFFFFFF) + value
        return head + vr + pack(order + "H", long & 0xFFFF) + value

    def nest(self, tag: int, depth: int, *, closed: bool) -> bytes:
        """Return a sequence of undefined length within a sequence, `depth` times."""
        order = "<" if self.little else ">"
        item = pack(order + "HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        ends = pack(order + "HHL", 0xFFFE, 0xE00D, 0) + pack(order + "HHL", 0xFFFE, 0xE0DD, 0)
        opened = self.element(tag, b"SQ", b"", 0xFFFFFFFF) + item
        return opened * depth + (ends * depth if closed else b"")


def mutate(shape: Shape, plain: bytes, chance: Random, others: list[bytes]) -> list[Edit]:
    """Return one to four edits of a data set."""
    return [_one(shape, plain, chance, others) for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4)))]


def _one(shape: Shape, plain: bytes, chance: Random, others: list[bytes]) -> Edit:
    kind = chance.randrange(12)
    if kind == 0 or not shape.places:
        return _flip(plain, chance)
    place = chance.choice(shape.places)
    if chance.random() < 0.5:  # what the node looks at, more often
        looked_at = [found for found in shape.places if found.tag in WANTED]
        place = chance.choice(looked_at or [place])
    order = "<" if shape.little else ">"
    if kind == 1:  # a length that lies
        wide = place.value - place.length_at == 4
        right = place.end - place.value
        length = chance.choice((*LENGTHS, max(right + chance.choice((-2, -1, 1, 2, 100)), 0)))
        field = pack(order + "L", length) if wide else pack(order + "H", length & 0xFFFF)
        return Edit(place.length_at, len(field), field)
    if kind == 2 and not shape.implicit:
        return Edit(place.start + 4, 2, chance.choice(VRS))
    if kind == 3:
        return Edit(chance.randrange(len(plain)), len(plain), b"")  # cut off
    if kind == 4:
        return Edit(place.start, place.end - place.start, b"")
    if kind == 5:  # twice, near or at the end
        return Edit(chance.choice((place.end, len(plain))), 0, plain[place.start : place.end][:4096])
    if kind == 6:  # another tag
        tag = chance.choice((*WANTED, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x00020010, 0x00000002, 0x00091001))
        return Edit(place.start, 4, pack(order + "HH", tag >> 16, tag & 0xFFFF))
    if kind in (7, 8):  # another value, with the right length
        value = chance.choice(VALUES) if chance.random() < 0.8 else chance.randbytes(chance.randrange(80))
        value = value[:0xFFFE] + b" " * (len(value) % 2 and chance.randrange(2))
        vr = plain[place.start + 4 : place.start + 6] if not shape.implicit else b""
        return Edit(place.start, place.end - place.start, shape.element(place.tag, vr, value))
    if kind == 9:
        return Edit(place.start, 0, _hostile(shape, chance))
    if kind == 10:
        other = chance.choice(others)
        at = chance.randrange(max(len(other), 1))
        return Edit(place.start, chance.choice((0, place.end - place.start)), other[at : at + 512])
    return Edit(
        place.value, min(4, place.end - place.value), chance.choice((b"\xff" * 4, b"\0" * 4, b"\x80" * 4))
    )


def _flip(plain: bytes, chance: Random) -> Edit:
    at = chance.randrange(max(len(plain), 1))
    size = chance.choice((1, 1, 1, 2, 4, 16))
    return Edit(at, size, bytes(byte ^ (1 << chance.randrange(8)) for byte in plain[at : at + size]))


def _hostile(shape: Shape, chance: Random) -> bytes:
    kind = chance.randrange(8)
    tag = chance.choice(WANTED)
    if kind == 0:
        return shape.nest(tag, chance.choice((2, 63, 64, 65, 300, 2000)), closed=chance.random() < 0.5)
    if kind == 1:
        return shape.element(0x00091001, b"OB", b"", chance.choice((0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)))
    if kind == 2:
        return pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    if kind == 3:
        return shape.element(0x00091002, b"SH", b"") * chance.choice((100, 1000, 5000))
    if kind == 4:
        return b"\0" * chance.choice((8, 64, 1024))
    if kind == 5:
        return shape.element(tag, chance.choice(VRS), chance.choice(VALUES))
    if kind == 6:
        inner = shape.element(0x00080100, b"SH", chance.choice(VALUES)[:200])
        item = (
            shape.element(0xFFFEE000, b"", inner)
            if shape.implicit
            else pack("<HHL", 0xFFFE, 0xE000, len(inner)) + inner
        )
        return shape.element(tag, b"SQ", item * chance.choice((1, 2, 500)))
    return shape.element(tag, b"UN", chance.randbytes(chance.randrange(64)))


def mutated(seed: Seed, shape: Shape, chance: Random, others: list[bytes]) -> tuple[list[Edit], bytes]:
    """Return edits and what a peer would send after them; a deflated one is sometimes broken as it lies."""
    if seed.deflated and chance.random() < 0.3:
        edits = [_flip(seed.content, chance)]
        return edits, apply(seed.content, edits)
    plain = seed.plain
    edits = mutate(shape, plain, chance, others)
    return edits, seed.packed(apply(plain, edits))
