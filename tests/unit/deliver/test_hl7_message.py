"""Reports as ORU^R01: legal by HL7's own structure (hl7apy), and read back whole by another parser (python-hl7)."""

from __future__ import annotations

import re
from dataclasses import replace

import hl7
import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.deliver.hl7_message import Message, escape, oru
from dicom_node.domain.errors import CannotUnderstandError
from dicom_node.domain.types import Verdict
from dicom_node.report import sr
from tests.unit.report.builders import (
    AT,
    EQUIPMENT,
    HIGH,
    LOW,
    UNDECODABLE,
    WRONG_VIEW,
    header,
    image,
    result,
    several,
)

_OUTCOMES = {
    Verdict.ABOVE: {"score": HIGH},
    Verdict.BELOW: {"score": LOW},
    Verdict.NOT_ANALYSED: {"refusal": WRONG_VIEW},
    Verdict.FAILED: {"refusal": UNDECODABLE},
}


def _message(verdict: Verdict = Verdict.ABOVE, **changes: bytes) -> Message:
    images = [image(**_OUTCOMES[verdict])]
    report = sr.build(result(verdict, images), [header(changes)], EQUIPMENT, AT)
    return oru(report.content, sending=("dicom-node", "Phantom hospital"), receiving=("RIS", "HOSP"))


def _read(message: Message, codec: str = "utf-8") -> hl7.Message:
    return hl7.parse(message.content.decode(codec))


NAMES = {
    "ascii": (b"", b"Doe^Jane^M^Dr^Jr", "", "ascii", "Doe^Jane^M^Jr^Dr"),
    "latin": (b"ISO_IR 100", "Gómez^Ñuño".encode("latin-1"), "8859/1", "latin-1", "Gómez^Ñuño"),
    "cyrillic": (b"ISO_IR 144", "Иванов^Пётр".encode("iso8859-5"), "8859/5", "iso8859-5", "Иванов^Пётр"),
    "utf8": (b"ISO_IR 192", "Gómez^山".encode(), "UNICODE UTF-8", "utf-8", "Gómez^山"),
    "japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B",
        "UNICODE UTF-8",
        "utf-8",
        "Yamada^Tarou~山田^太郎^^^^^^I",
    ),
    "korean": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7",
        "UNICODE UTF-8",
        "utf-8",
        "Hong^Gildong~洪^吉洞^^^^^^I",
    ),
}


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("name", list(NAMES))
def test_every_outcome_in_every_character_set_is_legal_and_says_the_name(name, verdict):
    stated, raw, msh18, codec, shown = NAMES[name]
    message = _message(verdict, SpecificCharacterSet=stated, PatientName=raw)
    text = message.content.decode(codec)
    assert parse_message(text, VALIDATION_LEVEL.STRICT).validate()
    read = hl7.parse(text)
    assert str(read.segment("PID")[5]) == shown
    assert (str(read.segment("MSH")[18]) if msh18 else "") == msh18
    assert len(read.segment("MSH")) == (19 if msh18 else 13)


@pytest.mark.parametrize(
    ("name", "msh18", "codec"), [("ascii", "UNICODE UTF-8", "utf-8"), ("latin", "8859/1", "latin-1")]
)
def test_a_site_that_is_not_spelled_in_ascii_is_named_as_it_is(name, msh18, codec):
    stated, raw, *_ = NAMES[name]
    source = header({"SpecificCharacterSet": stated, "PatientName": raw})
    report = sr.build(result(Verdict.ABOVE, [image(score=HIGH)]), [source], EQUIPMENT, AT)
    message = oru(report.content, sending=("dicom-node", "Universitätsspital"), receiving=("RIS", "HÔPITAL"))
    msh = _read(message, codec).segment("MSH")
    assert [str(msh[n]) for n in (4, 6, 18)] == ["Universitätsspital", "HÔPITAL", msh18]


def test_patient_order_study_and_result_stand_where_they_are_looked_for():
    read = _read(_message())
    assert [str(read.segment("MSH")[n]) for n in (3, 4, 5, 6, 9, 12)] == [
        *("dicom-node", "Phantom hospital", "RIS", "HOSP"),
        *("ORU^R01^ORU_R01", "2.5.1"),
    ]
    assert [str(read.segment("PID")[n]) for n in (3, 7, 8)] == ["P1", "19600101", "F"]
    assert [str(read.segment("OBR")[n]) for n in (3, 18, 25)] == ["A1", "A1", "R"]
    said = {str(row[3][0][0]): row for row in read.segments("OBX")}
    assert str(said["110180"][5]) == "1.2.276.0.1.1"
    assert str(said["121111"][5]).endswith("not a diagnosis.")
    assert (str(said["SCORE"][2]), str(said["SCORE"][5]), str(said["SCORE"][17])) == (
        *("NM", "0.48123456789012"),
        "^deep-knn",
    )
    assert (str(said["121415"][5]), str(said["121415"][6])) == ("97.37", "%^Percent^UCUM")
    assert str(said["VERDICT"][5]) == "ABOVE^Above threshold^99DICOMNODE"
    assert {str(row[11]) for row in read.segments("OBX")} == {"R"}
    assert [int(str(row[1])) for row in read.segments("OBX")] == list(range(1, len(said) + 1))


def test_what_is_said_twice_in_two_languages_and_of_several_images_is_told_apart():
    report = sr.build(*several(), replace(EQUIPMENT, language="sv"), AT)
    message = oru(report.content, sending=("dicom-node", ""), receiving=("", ""))
    assert parse_message(
        message.content.decode()
    ).validate()  # not STRICT, which takes a text for a string of 199
    named = [(str(row[3]), str(row[4])) for row in _read(message).segments("OBX")]
    assert len(named) == len(set(named))
    assert [sub_id for concept, sub_id in named if concept.startswith("121111^")] == ["", "0.2"]
    assert {sub_id for concept, sub_id in named if concept.startswith("SCORE^")} == {"1", "2"}


def test_a_study_without_a_score_is_told_with_its_reason_and_no_number():
    read = _read(_message(Verdict.NOT_ANALYSED))
    assert {str(row[2]) for row in read.segments("OBX")} == {"ST", "TX", "CE"}
    assert "view position LL" in " ".join(str(row[5]) for row in read.segments("OBX"))


def test_the_same_report_is_the_same_message_and_another_one_has_another_control_id():
    assert _message() == _message()
    assert len(_message().control_id) == 20
    assert _message().control_id != _message(Verdict.BELOW).control_id


def test_an_issuer_and_the_orders_numbers_go_along():
    read = _read(_message(IssuerOfPatientID=b"HOSP A"))
    assert str(read.segment("PID")[3]) == "P1^^^HOSP A"


_HOSTILE = st.text(
    st.characters(codec="utf-8", exclude_characters="^=\\\0\n\f\r\x1b\x0b\x1c\x1d\x1e\x1f"), max_size=40
)


@settings(deadline=None, max_examples=20)
@given(_HOSTILE)
def test_whatever_a_name_is_it_adds_no_segment_field_or_component(name):
    hostile = _message(SpecificCharacterSet=b"ISO_IR 192", PatientName=name.encode())
    plain, rows = (message.content.decode().split("\r") for message in (_message(), hostile))
    assert [row[:3] for row in rows] == [row[:3] for row in plain]
    assert rows[1].count("|") == plain[1].count("|")
    assert not set(rows[1].split("|")[5]) & set("^~&")


@given(st.text(st.characters(codec="utf-8", max_codepoint=0x2FFF)))
def test_escaped_text_is_free_of_delimiters_and_read_back_whole(text):
    written = escape(text)
    assert not set(written) & set("|^&~\r\n\x0b\x1c")
    back = {"E": "\\", "F": "|", "S": "^", "T": "&", "R": "~"}
    read = re.sub(
        r"\\(?:([EFSTR])|X(..))\\", lambda m: back[m[1]] if m[1] else chr(int(m[2], 16)), written, flags=re.S
    )
    assert read == text


def test_what_is_no_report_is_named_so():
    with pytest.raises(CannotUnderstandError, match="is no report"):
        oru(b"\0" * 200, sending=("", ""), receiving=("", ""))
