from __future__ import annotations

import dataclasses
import logging
import warnings
from datetime import datetime
from io import BytesIO

import pytest
from highdicom.sr import Comprehensive3DSR, srread
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from dicom_node.domain.errors import ReportError
from dicom_node.domain.types import Verdict
from dicom_node.report import sr
from dicom_node.report.text import facts
from tests.unit.report.builders import (
    AT,
    EQUIPMENT,
    HIGH,
    LOW,
    USUAL,
    changed,
    header,
    image,
    raw,
    result,
)
from tests.unit.report.test_header import KEYWORDS, variants

BAD = {
    "a score without provenance": (result(Verdict.ABOVE, [image(score=HIGH, provenance=None)]), "bank's hash"),
    "a score that is no number": (
        result(Verdict.ABOVE, [image(score=dataclasses.replace(HIGH, value=float("nan")))]),
        "finite",
    ),
    "a verdict against its scores": (result(Verdict.BELOW, [image(score=HIGH)]), "its scores say above"),
    "nothing that decides": (result(Verdict.ABOVE, decisive=None), "needs a scored image"),
    "something that decides a failure": (result(Verdict.FAILED, decisive=0), "no image that decides"),
    "more images than headers": (
        result(Verdict.ABOVE, [image(score=HIGH), image(2, score=LOW)]),
        "1 headers for 2",
    ),
    "an illegal study UID": (result(Verdict.ABOVE, study_instance_uid="1..2"), "Study Instance UID"),
    "another study's header": (result(Verdict.ABOVE, study_instance_uid="1.2.3"), "StudyInstanceUID"),
    "another image's header": (result(Verdict.ABOVE, [image(9, score=HIGH)]), "SOPInstanceUID"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_reported_truthfully_is_an_error_without_patient_data(what: str) -> None:
    study, said = BAD[what]
    with pytest.raises(ReportError) as raised:
        sr.build(study, [header()], EQUIPMENT, AT)
    assert said in str(raised.value)
    assert "Doe" not in str(raised.value)
    assert "P1" not in str(raised.value)


def test_a_moment_without_a_zone_is_an_error() -> None:
    with pytest.raises(ReportError, match="time zone"):
        sr.build(result(Verdict.ABOVE), [header()], EQUIPMENT, datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("what", variants())
def test_every_header_variant_gets_a_report_and_nothing_of_it_is_logged(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = variants()[what]
    caplog.clear()
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        report = sr.build(result(Verdict.ABOVE), [source], EQUIPMENT, AT)
    assert not caplog.records
    assert isinstance(srread(BytesIO(report.content)), Comprehensive3DSR)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from([k for k in KEYWORDS if k not in ("StudyInstanceUID", "SOPInstanceUID")]),
        st.one_of(st.none(), st.binary(max_size=70)),
    ),
    st.sampled_from(Verdict),
)
def test_no_header_whatever_keeps_a_study_from_its_report(
    changes: dict[str, bytes | None], verdict: Verdict
) -> None:
    source = changed(changes)
    report = sr.build(result(verdict), [source], EQUIPMENT, AT)
    ds = dcmread(BytesIO(report.content))
    assert facts(ds)["verdict"] == verdict.value
    name = raw(ds, "PatientName")
    sent = (changes["PatientName"] if "PatientName" in changes else USUAL["PatientName"]) or b""
    assert name in (b"", sent.rstrip(b" \0"))


def test_texts_inside_sequences_keep_their_bytes_too() -> None:
    issuer = Dataset()
    issuer.LocalNamespaceEntityID = "Клиника"
    source = header({"SpecificCharacterSet": b"ISO_IR 144"})
    source.IssuerOfAccessionNumberSequence = [issuer]
    # An item inherits the character set of its data set; one made by hand has to be told.
    encoded = "Клиника".encode("iso8859_5")
    tag = issuer[0x00400031].tag
    issuer[tag] = RawDataElement(tag, "UT", len(encoded) + 1, encoded + b" ", 0, False, True, True)
    report = sr.build(result(Verdict.BELOW), [source], EQUIPMENT, AT)
    assert (
        dcmread(BytesIO(report.content)).IssuerOfAccessionNumberSequence[0].LocalNamespaceEntityID == "Клиника"
    )
    assert encoded in report.content
