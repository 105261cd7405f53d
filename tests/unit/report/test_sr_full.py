from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.domain.explanation import Region
from dicom_node.domain.types import StudyResult, Verdict
from dicom_node.report import profile, sr
from dicom_node.report.repertoire import written
from dicom_node.report.sentence import catalogue, sentence
from dicom_node.report.text import facts, render
from tests.peers_validators import dciodvfy
from tests.unit.report.builders import (
    AT,
    EQUIPMENT,
    HIGH,
    NAMES,
    WRONG_VIEW,
    header,
    image,
    raw,
    result,
    several,
)
from tests.unit.report.test_profile import IODS

OUTLINE = ((300.0, 500.0), (800.0, 500.0), (800.0, 900.0))
LANGUAGES = [language for language in catalogue() if language != "en"]


def in_language(language: str, study: StudyResult, **changes: bytes | None) -> bytes:
    return sr.build(study, [header(changes)], replace(EQUIPMENT, language=language), AT).content


def outlined() -> StudyResult:
    one = replace(image(score=replace(HIGH, neighbours=("n1", "n2"))), region=Region(OUTLINE, 0.04))
    return result(Verdict.ABOVE, [one])


def summaries(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield language and text of each summary, as a reader of the standard finds them."""
    ds = dcmread(BytesIO(content))
    for item in ds.ContentSequence:
        if item.ConceptNameCodeSequence[0].CodeValue == "121111":
            spoken = item.get("ContentSequence", ds.ContentSequence)[0]
            yield spoken.ConceptCodeSequence[0].CodeValue, str(item.TextValue)


def test_the_issue_asks_for_these_languages_at_least() -> None:
    assert {"en", "de", "fr", "sv", "ja"} <= set(catalogue())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text_with_the_same_blanks_to_fill_in(language: str) -> None:
    english, other = catalogue()["en"], catalogue()[language]
    assert set(other) == {*english, "reasons"}
    blanks = {
        key: {name for _, name, _, _ in string.Formatter().parse(text) if name} for key, text in english.items()
    }
    for key, names in blanks.items():
        assert {name for _, name, _, _ in string.Formatter().parse(other[key]) if name} == names, key
    assert set(other["reasons"]) == set(catalogue()["de"]["reasons"])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("verdict", Verdict)
def test_the_sites_language_opens_the_report_and_english_follows(verdict: Verdict, language: str) -> None:
    content = in_language(language, result(verdict), SpecificCharacterSet=b"ISO_IR 192")
    own, english = summaries(content)
    assert own == (catalogue()[language]["code"], sentence(result(verdict), language))
    assert english[0] == "en-US"
    assert english[1] == f"In English: {sentence(result(verdict))}"
    assert facts(content)["summary"] == sentence(result(verdict))
    assert render(content).splitlines()[2] == own[1]


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", ["ascii", "latin-1", "utf-8 japanese", "iso 2022 japanese", "cyrillic"])
def test_a_language_is_legal_in_the_character_set_of_the_images_or_left_out(
    what: str, language: str, tmp_path: Path
) -> None:
    charset, name = NAMES[what]
    content = in_language(language, outlined(), SpecificCharacterSet=charset, PatientName=name)
    assert dciodvfy(content, tmp_path) == []
    assert raw(dcmread(BytesIO(content)), "PatientName") == name
    found = list(summaries(content))
    if language == "ja" and what in ("ascii", "latin-1", "cyrillic"):
        assert [spoken for spoken, _ in found] == ["en-US"]
    else:
        assert [spoken for spoken, _ in found] == [catalogue()[language]["code"], "en-US"]
        assert "?" not in found[0][1]


def test_accents_are_kept_where_the_character_set_has_them_and_spelled_out_where_not() -> None:
    assert written("über Größe", ("ISO_IR 100",)) == "über Größe"
    assert written("über Größe", ("ISO_IR 144",)) == "ueber Groesse"
    assert written("över måttet", ()) == "oever maattet"
    assert written("écarté", ("", "ISO 2022 IR 149")) == "ecarte"
    assert written("正常", ("", "ISO 2022 IR 87")) == "正常"
    assert written("正常", ("ISO_IR 100",)) is None


def test_another_language_tells_the_kind_of_reason_and_english_tells_all_of_it() -> None:
    own, english = summaries(
        in_language("de", result(Verdict.NOT_ANALYSED), SpecificCharacterSet=b"ISO_IR 192")
    )
    assert "die Aufnahmerichtung wird hier nicht bewertet" in own[1]
    assert WRONG_VIEW.reason in english[1]


def test_several_images_are_counted_in_every_language() -> None:
    study, _ = several()
    for language in catalogue():
        said = sentence(study, language)
        assert re.search(r"\b2\b.*\b3\b|\b3\b.*\b2\b", said), language
        assert re.search(r"\b1\b", said), language


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize("sop_class", profile.CLASSES)
def test_a_region_is_outlined_in_the_report_where_its_class_has_coordinates(
    sop_class: str, tmp_path: Path
) -> None:
    content = sr.build(outlined(), [header()], EQUIPMENT, AT).content
    cut = profile.cut(content, sop_class).content
    assert dciodvfy(cut, tmp_path, IODS[sop_class]) == []
    if sop_class == profile.CLASSES[-1]:
        assert "POLYLINE of 4 points, not shown" in render(cut)
    else:
        assert facts(cut)["images"][0]["region"] == [*OUTLINE, OUTLINE[0]]
        assert "Share of the image that the region covers: 4 %" in render(cut)


def test_the_nearest_normals_stand_with_the_score_that_they_belong_to() -> None:
    shown = render(sr.build(outlined(), [header()], EQUIPMENT, AT).content)
    assert "Nearest normal images of the bank, nearest first: Nearest normals: n1, n2." in shown


def test_an_outline_says_what_it_is_where_a_renderer_shows_no_names_of_concepts() -> None:
    shown = render(sr.build(outlined(), [header()], EQUIPMENT, AT).content)
    assert "Comment: The most unusual region covers 4.0 % of image 1." in shown


def test_what_was_changed_in_the_header_is_said_without_the_value() -> None:
    content = sr.build(
        outlined(), [header({"PatientSex": b"male", "StudyTime": b"25:99"})], EQUIPMENT, AT
    ).content
    notes = facts(content)["notes"]
    assert any(note.startswith("Header of image 1: PatientSex") for note in notes)
    assert any(note.startswith("Header of image 1: StudyTime") for note in notes)
    assert not any("25:99" in note for note in notes)


def test_very_many_changes_are_counted_instead_of_listed() -> None:
    images = [image(number, score=HIGH) for number in range(1, 31)]
    headers: list[Dataset] = [
        header({"SOPInstanceUID": one.sop_instance_uid.encode(), "PatientSex": b"male", "StudyTime": b"25:99"})
        for one in images
    ]
    notes = facts(sr.build(result(Verdict.ABOVE, images), headers, EQUIPMENT, AT).content)["notes"]
    assert len(notes) == 41
    assert notes[-1] == "and 20 more changes of this kind"
