from __future__ import annotations

import pytest
from pydicom import Dataset

from dicom_node.report.for_people import LONGEST, lines, patient, person_name, visible
from tests.phantoms import chest_dataset


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Yamada, Tarou (山田 太郎)"),
        ("Doe^Jane^A^Dr", "Doe, Jane A Dr"),
        ("=山田^太郎", "山田 太郎"),
        ("Doe", "Doe"),
        ("^Jane", "Jane"),
        ("", ""),
    ],
)
def test_a_name_is_shown_as_people_write_it(stored: str, shown: str) -> None:
    assert person_name(stored) == shown


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("a\u202eb\u200bc\ufeffd", "abcd"),
        ("a\x00\x1b[31mb", "a[31mb"),
        ("a\u2028b\r\nc", "a b c"),
        ("<b>&amp;</b>", "<b>&amp;</b>"),
        ("e" + "\u0301" * 50, "é" + "\u0301" * 3),
        ("\ue000x", "x"),
    ],
)
def test_what_is_no_text_is_removed_and_the_rest_is_left(stored: str, shown: str) -> None:
    assert visible(stored) == shown


def test_64_k_of_text_are_cut_with_three_dots() -> None:
    shown = visible("x" * 65536)
    assert (len(shown), shown[-1]) == (LONGEST, "…")


def test_lines_stay_lines_with_their_indentation() -> None:
    assert lines("a\n  b\u202e\n\n    c") == "a\n  b\n\n    c"


def test_a_header_says_who_it_is_of_in_its_own_character_set() -> None:
    ds = chest_dataset(
        SpecificCharacterSet="ISO_IR 144",
        PatientName="Иванов^Иван",
        PatientID="P1",
        PatientAge="081Y",
        PatientSex="M",
    )
    found = patient(ds)
    assert (found.name, found.age, found.sex, found.study_moment) == (
        "Иванов, Иван",
        "81 years",
        "M",
        "2026-01-02 03:04",
    )


def test_an_age_that_is_not_stated_follows_from_the_dates() -> None:
    ds = chest_dataset(PatientAge=None, PatientBirthDate="19600103", StudyDate="20260102")
    assert patient(ds).age == "65 years"


def test_nothing_of_a_patient_is_in_what_is_printed_of_him() -> None:
    assert "Smith" not in repr(patient(chest_dataset(PatientName="Smith^John", PatientID="Smith")))


def test_a_header_without_anything_says_nothing() -> None:
    found = patient(Dataset())
    assert {getattr(found, name) for name in found.__dataclass_fields__} == {""}
