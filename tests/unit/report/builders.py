"""Images and results to make reports of. Headers are read back from bytes, as a receiver has them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from struct import pack

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from dicom_node.domain.types import ImageResult, Provenance, Refusal, Score, StudyResult, Verdict
from dicom_node.report.sr import Equipment

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SC = "1.2.840.10008.5.1.4.1.1.7"
STUDY = "1.2.276.0.1.1"
SERIES = "1.2.276.0.1.1.1"
AT = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)

USUAL: dict[str, bytes] = {
    "SOPClassUID": CR.encode(),
    "SOPInstanceUID": b"1.2.276.0.1.1.1.1",
    "StudyDate": b"20260304",
    "StudyTime": b"050000",
    "AccessionNumber": b"A1",
    "Modality": b"CR",
    "ReferringPhysicianName": b"Ref^A",
    "PatientName": b"Doe^Jane",
    "PatientID": b"P1",
    "PatientBirthDate": b"19600101",
    "PatientSex": b"F",
    "StudyInstanceUID": STUDY.encode(),
    "SeriesInstanceUID": SERIES.encode(),
    "StudyID": b"S1",
    "PatientOrientation": b"L\\F",
    "ImagerPixelSpacing": b"0.14\\0.14",
    "ViewPosition": b"PA",
    "BodyPartExamined": b"CHEST",
}

PROVENANCE = Provenance(
    bank_hash="ab" * 32,
    bank_name="adults-pa",
    algorithm="deep-knn",
    algorithm_version="0.1.0",
    backbone="efficientnet_lite0",
    head="identity",
    k=5,
    views=("squash", "flip"),
    false_positive_rate=0.05,
    normal_images=1341,
    calibration="held-out",
    calibration_images=210,
    population="adults, PA, CR and DX",
    site="Phantom site",
    created_at="2026-01-01T00:00:00+00:00",
)
EQUIPMENT = Equipment(
    device_uid="2.25.77",
    manufacturer="dicom_node",
    model_name="dicom-node",
    serial_number="0",
    software_version="0.1.0",
    institution_name="Phantom hospital",
    ae_title="DICOMNODE",
    series_description="Chest X-ray anomaly score (research)",
)
HIGH = Score(0.4812345678901234, 97.37, 2.31, 0.41, True, (0.4, 0.5), ("n1",))
LOW = Score(0.31, 41.2, -0.2, 0.41, False, (0.3, 0.32), ("n2",))
WRONG_VIEW = Refusal("view", "view position LL is not one of PA, AP")
UNDECODABLE = Refusal("decode", "the pixel data cannot be decoded")


def header(changes: Mapping[str, bytes | None] | None = None, *, rows: int = 2500) -> Dataset:
    """Return an image's header as read from bytes; None leaves an attribute out."""
    values = {**USUAL, **(changes or {})}
    return as_read({k: v for k, v in values.items() if v is not None}, rows)


def as_read(values: Mapping[str, bytes], rows: int = 2500) -> Dataset:
    """Write raw values, with the VRs of PS3.6, and read them back."""
    elements = {Tag(keyword): (dictionary_VR(keyword), value) for keyword, value in values.items()}
    elements[Tag("Rows")] = ("US", pack("<H", rows))
    elements[Tag("Columns")] = ("US", pack("<H", 2048))
    return dcmread(BytesIO(b"".join(_element(tag, *elements[tag]) for tag in sorted(elements))), force=True)


def changed(changes: Mapping[str, bytes | None]) -> Dataset:
    """Return `header` with changes of any kind; an empty one where pydicom cannot read the bytes at all."""
    try:
        return header(changes)
    except ValueError:  # e.g. a NUL inside SpecificCharacterSet
        return Dataset()


def _element(tag: BaseTag, vr: str, value: bytes) -> bytes:
    padded = value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    length = pack("<HL", 0, len(padded)) if vr in ("UT", "UC", "UN") else pack("<H", len(padded))
    return pack("<HH", tag.group, tag.element) + vr.encode() + length + padded


def raw(ds: Dataset, keyword: str) -> bytes | None:
    """Return the bytes of an element that nothing has decoded yet, without padding."""
    element = ds.get_item(Tag(keyword))
    if element is None:
        return None
    if keyword == "SpecificCharacterSet" and isinstance(element, DataElement):  # pydicom reads it at once
        terms = [element.value] if isinstance(element.value, str) else element.value or []
        return "\\".join(terms).encode()
    assert isinstance(element, RawDataElement), keyword
    return (element.value or b"").rstrip(b" \0")


def image(number: int = 1, **outcome: object) -> ImageResult:
    """Return the result of image `number`; scored ones get the usual provenance."""
    if outcome.get("score") is not None:
        outcome.setdefault("provenance", PROVENANCE)
    sop_class = str(outcome.pop("sop_class", CR))
    return ImageResult(sop_class, f"1.2.276.0.1.1.1.{number}", SERIES, **outcome)  # type: ignore[arg-type]


def result(verdict: Verdict, images: Sequence[ImageResult] = (), **changes: object) -> StudyResult:
    """Return a study's result of one image unless others are given."""
    usual = {
        Verdict.ABOVE: StudyResult(STUDY, 1, verdict, (image(score=HIGH),), decisive=0),
        Verdict.BELOW: StudyResult(STUDY, 1, verdict, (image(score=LOW),), decisive=0),
        Verdict.NOT_ANALYSED: StudyResult(STUDY, 1, verdict, (image(refusal=WRONG_VIEW),), WRONG_VIEW.reason),
        Verdict.FAILED: StudyResult(STUDY, 1, verdict, (image(refusal=UNDECODABLE),), UNDECODABLE.reason),
    }[verdict]
    if images:
        changes["images"] = tuple(images)
    return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]


def several() -> tuple[StudyResult, list[Dataset]]:
    """Return a study of three images: two scored, the second of which decides, and a lateral that was not."""
    images = [image(1, score=LOW), image(2, score=HIGH), image(3, refusal=WRONG_VIEW)]
    headers = [header({"SOPInstanceUID": i.sop_instance_uid.encode()}) for i in images]
    return result(Verdict.ABOVE, images, decisive=1), headers


NAMES: dict[str, tuple[bytes, bytes]] = {
    # what: (SpecificCharacterSet, PatientName), as bytes on the wire
    "ascii": (b"", b"Doe^Jane"),
    "latin-1": (b"ISO_IR 100", "Müller^Jürgen".encode("latin_1")),
    "latin-2": (b"ISO_IR 101", "Wałęsa^Łukasz".encode("iso8859_2")),
    "latin-9": (b"ISO_IR 203", "Œuvre^Žofie".encode("iso8859_15")),
    "cyrillic": (b"ISO_IR 144", "Иванов^Пётр".encode("iso8859_5")),
    "greek": (b"ISO_IR 126", "Διονυσιος".encode("iso8859_7")),
    "utf-8 japanese": (b"ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう".encode()),
    "utf-8 bare": (b"ISO_IR 192", "山田^太郎".encode()),
    # PS3.5 sections H.3.1 and I.2: the standard's own examples, with their escape sequences
    "iso 2022 japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "iso 2022 japanese, katakana": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    "iso 2022 korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    "gb18030": (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030")),
    # 0x5C, a backslash in ASCII, is the second byte of these characters
    "gb18030 with 0x5C": (b"GB18030", "誠^俓".encode("gb18030")),
    "gbk": (b"GBK", "Wang^XiaoDong=王^小东".encode("gbk")),
    "thai": (b"ISO_IR 166", "สมชาย^ใจดี".encode("iso8859_11")),
}
