"""Patient modules that no person has: a legal header comes out all the same."""

from __future__ import annotations

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from dicom_node.domain.types import Verdict
from dicom_node.report import sr
from dicom_node.report.header import normalise
from tests.unit.report.builders import AT, EQUIPMENT, header, result

HOSTILE: dict[str, tuple[str, str | None, bytes]] = {
    "a name of ten thousand components": ("PatientName", "PN", b"^" * 10_000),
    "ten thousand names where one is allowed": ("PatientName", "PN", b"A\\" * 10_000),
    "an identifier of 64 kB": ("PatientID", "LO", b"x" * 65_534),
    "names longer than their VR can hold": ("OtherPatientNames", None, b"Doe^Jane\\" * 10_000),
    "a date of nothing": ("StudyDate", "DA", b"\xff" * 8),
    "a time of letters": ("StudyTime", "TM", b"%s%n%x"),
    "rows of the wrong length": ("Rows", "US", b"abc"),
    "rows of a VR that does not exist": ("Rows", "ZZ", b"abcd"),
    "a sequence that is cut off": ("OtherPatientIDsSequence", "SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x10"),
    "a sequence nested a thousand times": (
        "ProcedureCodeSequence",
        "SQ",
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00\x32\x10SQ\0\0\xff\xff\xff\xff" * 1000,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_value_is_left_out_and_the_study_gets_its_report(what: str) -> None:
    keyword, vr, value = HOSTILE[what]
    source = header({})
    tag = Tag(keyword)
    source._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, vr is None, True)
    normal, _ = normalise(source)
    assert value not in [getattr(element, "value", None) for element in normal._dict.values()]
    report = sr.build(result(Verdict.ABOVE), [source], EQUIPMENT, AT)
    assert value[:64] not in report.content or len(set(value[:64])) == 1
