"""Which steps a query means (PS3.4 section C.2.2.2), and what it gets of each. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom import DataElement, Dataset

from dicom_node.domain.wildcards import like

_FOR_TEXT = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
_NEVER_MATCHED = {"SpecificCharacterSet", "TransactionUID"}


def matches(keys: Dataset, ds: Dataset) -> bool:
    """Return whether a step matches a query's keys (PS3.4 section C.2.2.2)."""
    return all(_match(key, ds) for key in keys if key.keyword not in _NEVER_MATCHED)


def answer(keys: Dataset, ds: Dataset) -> Dataset:
    """Return what a query asked for of a step; what it has not is empty."""
    found = Dataset()
    for key in keys:
        if key.keyword == "TransactionUID":
            continue
        if key.tag in ds:
            found[key.tag] = ds[key.tag]
        else:
            found.add_new(key.tag, key.VR, [] if key.VR == "SQ" else None)
    for keyword in ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID"):
        if keyword in ds:
            found[keyword] = ds[keyword]
    return found


def _match(key: DataElement, ds: Dataset) -> bool:
    wanted = key.value
    if wanted is None or wanted == "" or (key.VR == "SQ" and not len(wanted)):
        return True
    here = ds.get(key.tag)
    if here is None or here.VR != key.VR:
        return False
    if key.VR == "SQ":
        return not wanted[0] or any(matches(wanted[0], item) for item in here.value)
    have = [str(one) for one in _values(here.value)]
    if key.VR == "UI":
        return bool({str(one) for one in _values(wanted)} & set(have))
    return any(_one(key.VR, str(want), one) for want in _values(wanted) for one in have)


def _one(vr: str, wanted: str, have: str) -> bool:
    if vr in {"DA", "TM", "DT"}:
        if "-" not in wanted:
            return have.startswith(wanted) if vr == "DT" else have == wanted
        first, _, last = wanted.partition("-")
        return (not first or have >= first) and (not last or have[: len(last)] <= last)
    if vr in _FOR_TEXT and ("*" in wanted or "?" in wanted):
        return like(wanted.lower() if vr == "PN" else wanted, have.lower() if vr == "PN" else have)
    return wanted.lower() == have.lower() if vr == "PN" else wanted == have


def _values(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue" else (value,)
