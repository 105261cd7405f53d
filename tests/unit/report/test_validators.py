from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.domain.types import ImageResult, StudyResult, Verdict
from dicom_node.report import profile, sr
from tests.peers_validators import dciodvfy, dsrdump
from tests.unit.report.builders import (
    AT,
    CR,
    DX,
    DX_FOR_PROCESSING,
    EQUIPMENT,
    HIGH,
    LOW,
    NAMES,
    PROVENANCE,
    SC,
    STUDY,
    UNDECODABLE,
    WRONG_VIEW,
    header,
    raw,
    result,
    several,
)
from tests.unit.report.test_header import variants

DATA = Path(__file__).resolve().parents[4] / "shared" / "data" / "cxr_dicom"
IODS = dict(
    zip(profile.CLASSES, ("Comprehensive3DSR", "ComprehensiveSR", "EnhancedSR", "BasicTextSR"), strict=True)
)
UNKNOWN_TO_DCIODVFY = (
    "latin-9",  # ISO_IR 203 is newer than the validator
    "gbk",  # it knows the term but holds the bytes against the default repertoire
    "gb18030 with 0x5C",  # it takes the second byte of a character for a backslash
)


def of_source(verdict: Verdict, source: Dataset) -> bytes:
    """Return the report of a study of one image, whatever that image's UIDs are."""
    outcome: dict[Verdict, dict[str, object]] = {
        Verdict.ABOVE: {"score": HIGH, "provenance": PROVENANCE},
        Verdict.BELOW: {"score": LOW, "provenance": PROVENANCE},
        Verdict.NOT_ANALYSED: {"refusal": WRONG_VIEW},
        Verdict.FAILED: {"refusal": UNDECODABLE},
    }
    one = ImageResult(
        str(source.SOPClassUID),
        str(source.SOPInstanceUID),
        str(source.SeriesInstanceUID),
        **outcome[verdict],  # type: ignore[arg-type]
    )
    scored = verdict in (Verdict.ABOVE, Verdict.BELOW)
    study = StudyResult(
        str(source.StudyInstanceUID), 1, verdict, (one,), "a reason", decisive=0 if scored else None
    )
    return sr.build(study, [source], EQUIPMENT, AT).content


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("sop_class", [CR, DX, DX_FOR_PROCESSING, SC])
def test_dciodvfy_finds_no_error_in_any_verdict_on_any_image(
    verdict: Verdict, sop_class: str, tmp_path: Path
) -> None:
    assert dciodvfy(of_source(verdict, header({"SOPClassUID": sop_class.encode()})), tmp_path) == []


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("verdict", Verdict)
@pytest.mark.parametrize("what", NAMES)
def test_dciodvfy_finds_no_error_in_any_character_set(what: str, verdict: Verdict, tmp_path: Path) -> None:
    charset, name = NAMES[what]
    errors = dciodvfy(
        of_source(verdict, header({"SpecificCharacterSet": charset, "PatientName": name})), tmp_path
    )
    if what in UNKNOWN_TO_DCIODVFY:
        errors = [
            e for e in errors if "PatientName" not in e and "Patient's Name" not in e and "Value Repre" not in e
        ]
    assert errors == []


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("what", variants())
def test_dciodvfy_finds_no_error_whatever_the_header_was(what: str, tmp_path: Path) -> None:
    assert dciodvfy(of_source(Verdict.ABOVE, variants()[what]), tmp_path) == []


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_finds_no_error_in_several_images_superseding_and_in_none_at_all(tmp_path: Path) -> None:
    study, headers = several()
    first = sr.build(study, headers, EQUIPMENT, AT)
    later = sr.build(result(Verdict.BELOW, revision=2), [header()], EQUIPMENT, AT, predecessors=[first])
    none = sr.build(StudyResult(STUDY, 1, Verdict.FAILED, (), "gone"), [], EQUIPMENT, AT)
    unusable = sr.build(result(Verdict.FAILED), [Dataset()], EQUIPMENT, AT)
    for report in (first, later, none, unusable):
        assert dciodvfy(report.content, tmp_path) == []


@pytest.mark.peer("dciodvfy")
def test_dciodvfy_does_find_errors_where_there_are_some(tmp_path: Path) -> None:
    content = of_source(Verdict.ABOVE, header())
    assert dciodvfy(content.replace(b"UNVERIFIED", b"INVENTED  "), tmp_path) != []


@pytest.mark.peer("dsrdump")
@pytest.mark.parametrize("verdict", Verdict)
def test_dcmtk_shows_the_sentence_and_the_result(verdict: Verdict, tmp_path: Path) -> None:
    shown = dsrdump(of_source(verdict, header()), tmp_path)
    opening = {
        Verdict.ABOVE: "More unusual than 97.3 % of",
        Verdict.BELOW: "More unusual than 41.2 % of",
        Verdict.NOT_ANALYSED: "Not analysed: a reason",
        Verdict.FAILED: "Analysis failed: a reason",
    }[verdict]
    assert opening in shown
    assert "Verification Flag   : UNVERIFIED" in shown


def real_files() -> Iterator[Path]:
    yield from sorted(DATA.iterdir()) if DATA.is_dir() else ()


@pytest.mark.data
@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("verdict", Verdict)
def test_reports_on_real_images_are_valid_and_keep_the_name(verdict: Verdict, tmp_path: Path) -> None:
    files = list(real_files())
    if not files:
        pytest.skip(f"there are no real images in {DATA.parent.name}/{DATA.name} beside the repository")
    for path in files:
        source = dcmread(path, force=True, stop_before_pixels=True)
        name = raw(source, "PatientName")
        content = of_source(verdict, source)
        assert dciodvfy(content, tmp_path) == [], path.name
        assert raw(dcmread(BytesIO(content)), "PatientName") == name, path.name


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sop_class", profile.CLASSES)
def test_the_procedure_that_a_worklist_asked_for_stands_in_a_valid_report(
    sop_class: str, tmp_path: Path
) -> None:
    source = header()
    asked = ("36643-5", "LN", "XR Chest 2 Views")
    built = sr.build(result(Verdict.ABOVE), [source], EQUIPMENT, AT, procedure=asked)
    report = profile.cut(built.content, sop_class)
    assert dciodvfy(report.content, tmp_path, IODS[sop_class]) == []
    if sop_class != profile.CLASSES[-1]:  # Basic Text has no codes as values
        assert asked in [code_of(item) for item in reported(dcmread(BytesIO(report.content)))]


@pytest.mark.parametrize(
    "broken", [("", "LN", "x"), ("a" * 17, "LN", "x"), ("1\\2", "LN", "x"), ("1", "", "x")]
)
def test_a_code_that_is_none_leaves_the_procedure_at_an_x_ray_of_no_stated_region(
    broken: tuple[str, str, str],
) -> None:
    built = sr.build(result(Verdict.ABOVE), [header()], EQUIPMENT, AT, procedure=broken)
    [item] = reported(dcmread(BytesIO(built.content)))
    assert code_of(item)[:2] == ("43468-8", "LN")


def reported(ds: Dataset) -> list[Dataset]:
    """Return the items that say what was reported on."""
    return [
        item
        for item in ds.ContentSequence
        if "ConceptNameCodeSequence" in item and item.ConceptNameCodeSequence[0].CodeValue == "121058"
    ]


def code_of(item: Dataset) -> tuple[str, str, str]:
    code = item.ConceptCodeSequence[0]
    return str(code.CodeValue), str(code.CodingSchemeDesignator), str(code.CodeMeaning)
