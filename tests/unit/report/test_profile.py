from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.domain.errors import ReportError
from dicom_node.domain.types import Report, Verdict
from dicom_node.report import profile, sr
from dicom_node.report.text import facts, render
from tests.peers_validators import dciodvfy, dsrdump
from tests.unit.report.builders import AT, EQUIPMENT, NAMES, header, raw, result, several
from tests.unit.report.test_validators import of_source

IODS = dict(
    zip(profile.CLASSES, ("Comprehensive3DSR", "ComprehensiveSR", "EnhancedSR", "BasicTextSR"), strict=True)
)
CHARACTER_SETS = ("ascii", "latin-1", "utf-8 japanese", "iso 2022 japanese", "cyrillic", "iso 2022 korean")
RICHEST, BASIC_TEXT = profile.CLASSES[0], profile.CLASSES[-1]


def items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence", ()):
        yield item
        yield from items(item)


def superseding() -> tuple[Report, Report]:
    study, headers = several()
    first = sr.build(study, headers, EQUIPMENT, AT)
    later = sr.build(result(Verdict.BELOW, revision=2), [header()], EQUIPMENT, AT, predecessors=[first])
    return first, later


@pytest.mark.peer("dciodvfy")
@pytest.mark.peer("dsrdump")
@pytest.mark.parametrize("what", CHARACTER_SETS)
@pytest.mark.parametrize("sop_class", profile.CLASSES, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_is_valid_in_every_class_and_character_set_and_keeps_the_name(
    verdict: Verdict, sop_class: str, what: str, tmp_path: Path
) -> None:
    charset, name = NAMES[what]
    source = header({"SpecificCharacterSet": charset, "PatientName": name})
    report = profile.cut(of_source(verdict, source), sop_class)
    assert dciodvfy(report.content, tmp_path, IODS[sop_class]) == []
    assert dsrdump(report.content, tmp_path)
    assert raw(dcmread(BytesIO(report.content)), "PatientName") == name


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sop_class", profile.CLASSES[1:])
def test_several_images_and_superseding_reports_are_valid_too(sop_class: str, tmp_path: Path) -> None:
    for report in superseding():
        assert dciodvfy(profile.cut(report.content, sop_class).content, tmp_path, IODS[sop_class]) == []


def test_the_richest_class_is_the_report_itself_byte_for_byte() -> None:
    first, _ = superseding()
    same = profile.cut(first.content, RICHEST)
    assert (same.content, same.sop_instance_uid) == (first.content, first.sop_instance_uid)


@pytest.mark.parametrize("sop_class", profile.CLASSES[1:])
def test_another_class_is_another_instance_of_the_same_series_and_the_same_at_every_attempt(
    sop_class: str,
) -> None:
    first, _ = superseding()
    cut, again = (profile.cut(first.content, sop_class) for _ in range(2))
    ds = dcmread(BytesIO(cut.content))
    assert cut.content == again.content
    assert cut.sop_instance_uid == profile.cut_uid(first.sop_instance_uid, sop_class) != first.sop_instance_uid
    assert cut.sop_instance_uid == ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID
    assert cut.sop_class_uid == sop_class == ds.SOPClassUID == ds.file_meta.MediaStorageSOPClassUID
    assert (cut.series_instance_uid, cut.study_instance_uid) == (
        first.series_instance_uid,
        first.study_instance_uid,
    )


@pytest.mark.parametrize("sop_class", profile.CLASSES[1:])
def test_a_cut_report_supersedes_the_earlier_one_as_it_was_cut(sop_class: str) -> None:
    first, later = superseding()
    ds = dcmread(BytesIO(profile.cut(later.content, sop_class).content))
    named = ds.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert named.ReferencedSOPInstanceUID == profile.cut(first.content, sop_class).sop_instance_uid
    assert named.ReferencedSOPClassUID == sop_class


@pytest.mark.parametrize("sop_class", profile.CLASSES[1:3])
def test_comprehensive_and_enhanced_keep_every_number(sop_class: str) -> None:
    first, _ = superseding()
    assert facts(profile.cut(first.content, sop_class).content) == facts(first.content)


def test_basic_text_has_no_number_left_and_says_each_as_text() -> None:
    first, _ = superseding()
    ds = dcmread(BytesIO(profile.cut(first.content, BASIC_TEXT).content))
    assert {item.ValueType for item in items(ds)} <= {"TEXT", "CODE", "UIDREF", "IMAGE", "CONTAINER"}
    assert {key for item in items(ds) for key in ("MeasuredValueSequence",) if key in item} == set()
    shown = render(ds)
    assert "Percentile Ranking of measurement: 97.37 %" in shown
    assert "Anomaly score (distance from normal): 0.481235" in shown
    assert "Pixel Data Rows: 2500 pixels" in shown


def test_an_outline_becomes_a_sentence_in_basic_text() -> None:
    first, _ = superseding()
    ds = dcmread(BytesIO(first.content))
    group = next(item for item in items(ds) if item.get("ContinuityOfContent") and item is not ds)
    region = Dataset()
    region.RelationshipType, region.ValueType = "CONTAINS", "SCOORD"
    region.ConceptNameCodeSequence = [group.ConceptNameCodeSequence[0]]
    region.GraphicType, region.GraphicData = "POLYLINE", [1.0, 1.0, 5.0, 1.0, 1.0, 1.0]
    region.ContentSequence = [Dataset()]
    group.ContentSequence.append(region)
    content = BytesIO()
    ds.save_as(content)
    cut = dcmread(BytesIO(profile.cut(content.getvalue(), BASIC_TEXT).content))
    said = [str(item.TextValue) for item in items(cut) if "POLYLINE" in str(item.get("TextValue", ""))]
    assert said == ["POLYLINE of 3 points, not shown"]


def test_another_class_or_another_object_is_refused_by_name() -> None:
    first, _ = superseding()
    with pytest.raises(ReportError, match=r"1\.2\.3 is no class of reports"):
        profile.cut(first.content, "1.2.3")
    cut = profile.cut(first.content, BASIC_TEXT)
    with pytest.raises(ReportError, match="no Comprehensive 3D SR"):
        profile.cut(cut.content, BASIC_TEXT)
