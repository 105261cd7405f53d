"""What an archive says it holds, as values, checked. Pure; knows nothing of how it was asked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pydicom.errors import BytesLengthException

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.sop_classes import STORAGE_CLASSES
from dicom_node.domain.unreadable import UNREADABLE

BROKEN = (*UNREADABLE, BytesLengthException)
"""What pydicom raises where what a peer answered breaks its VR."""

_DATE = re.compile(r"[0-9]{8}\Z")
_CODE = re.compile(r"[A-Z0-9 _]{1,16}\Z")
_TAKEN = frozenset(entry.uid for entry in STORAGE_CLASSES)
_NO_IMAGES = frozenset({"SR", "PR", "KO", "SEG", "DOC", "AU", "ECG", "EPS", "HD", "PLAN", "REG", "FID", "RWV"})


@dataclass(frozen=True, slots=True)
class StudyFound:
    """A study that matched. `patient_id` lives in memory only; `images` is None where the archive did not say."""

    study_instance_uid: str
    study_date: str = ""
    modalities: tuple[str, ...] = ()
    images: int | None = None
    patient_id: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SeriesFound:
    """A series that matched."""

    series_instance_uid: str
    modality: str = ""
    images: int | None = None


@dataclass(frozen=True, slots=True)
class ImageFound:
    """An object that matched. `sop_class_uid` is "" where the archive did not say."""

    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""
    modality: str = ""

    @property
    def fetched(self) -> bool:
        """Whether objects like it are taken here; reports and presentation states, for instance, are not."""
        if self.sop_class_uid:
            return self.sop_class_uid in _TAKEN
        return self.modality not in _NO_IMAGES


def uid(value: object) -> str:
    """Return a UID that came from outside, "" where it is none."""
    try:
        return check_uid(str(value or "").strip(" \0"))
    except InvalidIdentifierError:
        return ""


def date(value: object) -> str:
    """Return a date (YYYYMMDD) that came from outside, "" where it is none."""
    text = str(value or "").strip()
    return text if _DATE.match(text) else ""


def codes(value: object) -> tuple[str, ...]:
    """Return codes such as modalities that came from outside; what is none is left out."""
    many = value if isinstance(value, list | tuple) else str(value or "").split("\\")
    found = (str(one).strip() for one in list(many)[:64])
    return tuple(one for one in found if _CODE.match(one))


def number(value: object) -> int | None:
    """Return a count that came from outside; None where it is none."""
    text = str(value if value is not None else "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None
