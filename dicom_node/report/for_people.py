"""What an image's header says of patient and study, as text for a person's screen. Pure.

Everything in it was written by somebody else: it is bounded, freed of what is no visible text (control characters,
direction overrides, invisible ones, piles of combining marks), and otherwise left as it is. Escaping is the page's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from datetime import date

from pydicom.dataset import Dataset

from dicom_node.domain.reading import Patient
from dicom_node.report import values
from dicom_node.report.header import raw_value

LONGEST = 120
"""Characters of a text that are shown; three dots say that there was more."""
_LONGEST_RAW = 4096
_MOST_MARKS = 3
_UNREADABLE = (
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    OSError,
)
_UNITS = {"D": "day", "W": "week", "M": "month", "Y": "year"}


def patient(ds: Dataset) -> Patient:
    """Return who a header says it is of.

    Parameters
    ----------
    ds
        A header as read; it is left as it is. What cannot be read is "".
    """
    terms = _character_sets(ds)

    def text(keyword: str) -> str:
        return visible(_decoded(_raw(ds, keyword), terms))

    birth, study = _day(text("PatientBirthDate")), _day(text("StudyDate"))
    return Patient(
        name=person_name(_decoded(_raw(ds, "PatientName"), terms)),
        patient_id=text("PatientID"),
        sex=text("PatientSex"),
        age=_age(text("PatientAge"), birth, study),
        birth_date=birth.isoformat() if birth else text("PatientBirthDate"),
        accession_number=text("AccessionNumber"),
        study_description=text("StudyDescription"),
        study_moment=" ".join(
            part
            for part in (study.isoformat() if study else text("StudyDate"), _time(text("StudyTime")))
            if part
        ),
    )


def texts(ds: Dataset, keywords: Collection[str]) -> dict[str, str]:
    """Return other texts of a header by keyword, as they may be shown; "" for what is not there."""
    terms = _character_sets(ds)
    return {keyword: visible(_decoded(_raw(ds, keyword), terms)) for keyword in keywords}


def person_name(value: str) -> str:
    """Return a Person Name (PS3.5 section 6.2.1) as people write it: "Yamada, Tarou (山田 太郎)"."""
    groups = [_group(group, ", " if place == 0 else " ") for place, group in enumerate(value.split("=")[:3])]
    first, *others = [group for group in groups if group] or [""]
    return visible(f"{first} ({others[0]})" if others else first)


def visible(text: str, longest: int = LONGEST) -> str:
    """Return a text without what is none: on one line, its spaces single, cut at a length.

    Removed are characters of the categories Cc, Cf (direction overrides, joiners, byte order marks), Cs, Co and Cn;
    line and paragraph separators become spaces; of more than three combining marks on one character three stay.
    """
    kept: list[str] = []
    marks = 0
    for character in unicodedata.normalize("NFC", text[: 8 * longest]):
        category = unicodedata.category(character)
        if category in ("Zs", "Zl", "Zp") or character in "\t\n\r\f\v":
            kept.append(" ")
        elif category[0] != "C":
            marks = marks + 1 if category in ("Mn", "Me") else 0
            if marks <= _MOST_MARKS:
                kept.append(character)
    clean = re.sub(" +", " ", "".join(kept)).strip()
    return clean if len(clean) <= longest else f"{clean[: longest - 1]}…"


def lines(text: str, most: int = 2000) -> str:
    """Return a text of several lines as it may be shown: each line as `visible`, its indentation kept."""
    shown = []
    for line in text.split("\n")[:most]:
        stripped = line.lstrip(" ")
        shown.append(" " * min(len(line) - len(stripped), 40) + visible(stripped, 4000))
    return "\n".join(shown)


def _group(group: str, separator: str) -> str:
    family, *given = [part.strip() for part in group.split("^")[:5]]
    rest = " ".join(part for part in given if part)
    return f"{family}{separator}{rest}" if family and rest else family or rest


def _raw(ds: Dataset, keyword: str) -> bytes:
    try:
        return (raw_value(ds, keyword) or b"")[:_LONGEST_RAW]
    except _UNREADABLE:
        return b""


def _character_sets(ds: Dataset) -> tuple[str, ...]:
    return values.character_sets(_raw(ds, "SpecificCharacterSet"))[0]


def _decoded(raw: bytes, terms: tuple[str, ...]) -> str:
    try:
        text = values.decode(raw, terms)
    except _UNREADABLE:
        text = None
    return raw.decode(values.codec(terms), "replace") if text is None else text


def _day(text: str) -> date | None:
    match = re.fullmatch(r"(\d{4})[-./]?(\d\d)[-./]?(\d\d)", text)
    try:
        return date(*(int(part) for part in match.groups())) if match else None
    except ValueError:
        return None


def _time(text: str) -> str:
    match = re.match(r"([01]\d|2[0-3]):?([0-5]\d)", text)
    return f"{match[1]}:{match[2]}" if match else ""


def _age(stated: str, birth: date | None, study: date | None) -> str:
    """Return the age as stated, else in years as it follows from the dates."""
    if match := re.fullmatch(r"(\d{1,3})([DWMY])", stated):
        number = int(match[1])
        return f"{number} {_UNITS[match[2]]}{'' if number == 1 else 's'}"
    if birth is None or study is None or study < birth:
        return ""
    years = study.year - birth.year - ((study.month, study.day) < (birth.month, birth.day))
    return f"{years} year{'' if years == 1 else 's'}"
