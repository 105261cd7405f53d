"""What an image says of the population it belongs to. Pure; for routing only, never for messages."""

from __future__ import annotations

import re
from datetime import date

from pydicom.dataset import Dataset

from dicom_node.score.attributes import text

_AGE = re.compile(r"(\d{1,3})([DWMY])\Z")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}


def stated_age(ds: Dataset) -> float | None:
    """Return the patient's age in years at the time of the study, or None where it cannot be told.

    From Patient's Age (PS3.5 section 6.2, VR AS), or else from birth date and study date.
    """
    match = _AGE.match(text(ds, "PatientAge"))
    if match:
        return int(match[1]) / _PER_YEAR[match[2]]
    born, studied = _date(ds, "PatientBirthDate"), _date(ds, "StudyDate")
    if born is None or studied is None or studied < born:
        return None
    birthday_to_come = (studied.month, studied.day) < (born.month, born.day)
    years = studied.year - born.year - birthday_to_come
    return float(years) if years else (studied - born).days / 365.25


def stated_institution(ds: Dataset) -> str:
    """Return Institution Name in upper case, or ""."""
    return text(ds, "InstitutionName")


def _date(ds: Dataset, keyword: str) -> date | None:
    stated = text(ds, keyword)
    try:
        return date(int(stated[:4]), int(stated[4:6]), int(stated[6:8])) if len(stated) == 8 else None
    except ValueError:
        return None
