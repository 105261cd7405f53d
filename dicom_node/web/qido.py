"""What a DICOMweb query asks (QIDO-RS, PS3.18 section 10.6), and whether an object meets it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.wildcards import like

TAGS = {
    "SOPClassUID": "00080016", "SOPInstanceUID": "00080018", "StudyDate": "00080020", "StudyTime": "00080030",
    "AccessionNumber": "00080050", "Modality": "00080060", "ModalitiesInStudy": "00080061",
    "ReferringPhysicianName": "00080090", "PatientName": "00100010", "PatientID": "00100020",
    "StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "StudyID": "00200010",
    "SeriesNumber": "00200011", "InstanceNumber": "00200013",
}  # fmt: skip
"""Attributes that can be matched, by keyword."""
_BY_TAG = {tag: tag for tag in TAGS.values()}
_UIDS = frozenset(
    TAGS[name] for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
)
_RANGES = frozenset(TAGS[name] for name in ("StudyDate", "StudyTime"))
_MODALITY, _MODALITIES = TAGS["Modality"], TAGS["ModalitiesInStudy"]
_FIELD = re.compile(r"[A-Za-z0-9.]{1,64}\Z")
MOST, USUAL = 1000, 100
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Query:
    """What is wanted: values by tag, and which part of the answers."""

    keys: Mapping[str, str]
    offset: int = 0
    limit: int = USUAL
    fuzzy: bool = False


def parse(parameters: Iterable[tuple[str, str]]) -> Query:
    """Read the parameters of a query.

    Raises
    ------
    InvalidIdentifierError
        If one is unknown or its value is not valid; values are not repeated.
    """
    keys: dict[str, str] = {}
    numbers = {"offset": 0, "limit": USUAL}
    fuzzy = False
    for name, value in parameters:
        if len(value) > _LONGEST * (16 if TAGS.get(name, name.upper()) in _UIDS else 1):
            raise InvalidIdentifierError(f"{name[:40]}: the value is too long")
        if name in numbers:
            if not re.fullmatch(r"[0-9]{1,9}", value):
                raise InvalidIdentifierError(f"{name} is not a whole number")
            numbers[name] = int(value)
        elif name == "fuzzymatching":
            if value not in ("true", "false"):
                raise InvalidIdentifierError("fuzzymatching is neither true nor false")
            fuzzy = value == "true"
        elif name == "includefield":
            if not all(_FIELD.match(part) for part in value.split(",")):
                raise InvalidIdentifierError("includefield is no keyword, no tag of eight digits, and not all")
        elif (tag := TAGS.get(name) or _BY_TAG.get(name.upper())) is not None:
            if tag in keys:
                raise InvalidIdentifierError(f"{name} is given twice")
            keys[tag] = value
        else:
            known = ", ".join(sorted(TAGS))
            raise InvalidIdentifierError(
                f"{_shown(name)} cannot be matched here; these can: {known}; also limit, offset, includefield"
            )
    return Query(keys, numbers["offset"], min(numbers["limit"], MOST), fuzzy)


def meets(told: Mapping[str, Any], keys: Mapping[str, str]) -> bool:
    """Say whether an object, as DICOM JSON, has the values that a query asks for (PS3.4 section C.2.2.2)."""
    return all(
        _meets(_values(told, _MODALITY if tag == _MODALITIES else tag), wanted, tag)
        for tag, wanted in keys.items()
    )


def _meets(values: list[str], wanted: str, tag: str) -> bool:
    if wanted in ("", "*"):
        return True
    if tag in _UIDS:
        return any(value in re.split(r"[,\\]", wanted) for value in values)
    if tag in _RANGES and "-" in wanted:
        first, _, last = wanted.partition("-")
        return any(
            value and (not first or value >= first) and (not last or value[: len(last)] <= last)
            for value in values
        )
    return any(like(wanted.casefold(), value.casefold()) for value in values)


def _values(told: Mapping[str, Any], tag: str) -> list[str]:
    found = []
    for value in told.get(tag, {}).get("Value", ()):
        found += [str(group) for group in value.values()] if isinstance(value, Mapping) else [str(value)]
    return found or [""]


def _shown(name: str) -> str:
    return name if _FIELD.match(name) else "a parameter"
