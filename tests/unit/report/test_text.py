from __future__ import annotations

import pytest
from pydicom.dataset import Dataset

from dicom_node.domain.errors import ReportError
from dicom_node.domain.types import Verdict
from dicom_node.report import sr
from dicom_node.report.text import facts, render
from tests.unit.report.builders import AT, EQUIPMENT, header, result, several


def test_a_person_reads_the_sentence_first_and_every_content_item_after_it() -> None:
    shown = render(sr.build(result(Verdict.ABOVE), [header()], EQUIPMENT, AT).content).splitlines()
    assert shown[0] == "Imaging Measurement Report"
    assert shown[2].startswith("More unusual than 97.3 % of this site's normal chests")
    for line in (
        "Status:     COMPLETE, UNVERIFIED, PRELIMINARY",
        "Made:       2026-03-04 05:06:07 +0000",
        "      Pixel Data Rows: 2500 pixels",
        "    Finding Site: Thorax",
        "    Anomaly score (distance from normal): 0.481235",
        "      Percentile Ranking of measurement: 97.37 %",
        "      Normality: Abnormal",
        "      Horizontal Pixel Spacing: 0.14 mm",
        "  Result for the study: Above threshold",
    ):
        assert line in shown


def test_the_patient_is_shown_only_when_asked_for() -> None:
    content = sr.build(result(Verdict.BELOW), [header()], EQUIPMENT, AT).content
    assert "Doe" not in render(content)
    assert "P1" not in render(content)
    assert "Patient:    Doe^Jane (P1)" in render(content, identify=True)


def test_what_is_superseded_is_shown() -> None:
    first = sr.build(result(Verdict.BELOW), [header()], EQUIPMENT, AT)
    later = sr.build(result(Verdict.ABOVE, revision=2), [header()], EQUIPMENT, AT, predecessors=[first])
    assert f"Supersedes: {first.sop_instance_uid}" in render(later.content)


def test_the_reason_of_each_refused_image_is_shown() -> None:
    study, headers = several()
    shown = render(sr.build(study, headers, EQUIPMENT, AT).content)
    assert "    Comment: Not analysed: view position LL is not one of PA, AP" in shown.splitlines()


def test_facts_of_an_sr_that_is_not_ours_are_an_error() -> None:
    foreign = Dataset()
    foreign.SOPInstanceUID = "1.2.3"
    foreign.ValueType = "CONTAINER"
    foreign.ContentSequence = []
    with pytest.raises(ReportError, match=r"1\.2\.3 has no result code"):
        facts(foreign)


@pytest.mark.parametrize("content", [b"", b"not DICOM at all", header()])
def test_what_is_no_sr_is_an_error(content: bytes | Dataset) -> None:
    with pytest.raises(ReportError):
        render(content)
