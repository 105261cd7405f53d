"""Which image files a bank is built from: a folder, or a CSV. Knows names and whose they are, not pixels."""

from __future__ import annotations

import csv
import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from dicom_node.domain.errors import BankError

PICTURES = (".png", ".jpg", ".jpeg")
DICOM_LIKE = (".dcm", ".dicom", ".ima", "")
"""Suffixes looked at in a folder. A file without suffix may be DICOM; one that is not is skipped later."""

COLUMNS = ("path", "patient_id", "study", "view", "age")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to embed.

    Attributes
    ----------
    path
        Absolute.
    patient
        Keyed hash of the patient, or "" where only the file itself can say (DICOM) or nobody can.
    view
        View in upper case where the CSV states it, else "".
    """

    path: Path
    patient: str = ""
    view: str = ""


def hash_patient(patient_id: str, key: bytes) -> str:
    """Return a keyed hash of a patient's identifier.

    The key is random, stays in the build's work folder and is deleted with it: the hash groups a patient's
    images during one build and cannot be traced back after it.
    """
    return hmac.new(key, patient_id.strip().encode(), hashlib.sha256).hexdigest()[:32]


def read_entries(source: Path, key: bytes) -> list[Entry]:
    """Return the files of a folder (recursive, sorted by path) or of a CSV (in its order), each once.

    Parameters
    ----------
    source
        A folder; or a CSV with a header line: "path" is required (relative to the CSV), "patient_id", "study",
        "view" and "age" are optional. "study" stands in for a missing "patient_id"; "age" is not kept.
    key
        For `hash_patient`.

    Raises
    ------
    BankError
        If there is no such source, the CSV has no path column, or nothing is in it.
    """
    if source.is_dir():
        entries = [
            Entry(path)
            for path in sorted(source.rglob("*"))
            if path.is_file()
            and path.suffix.lower() in (*PICTURES, *DICOM_LIKE)
            and not any(part.startswith(".") for part in path.relative_to(source).parts)
            and path.name != "DICOMDIR"
        ]
    elif source.is_file() and source.suffix.lower() == ".csv":
        entries = _read_csv(source, key)
    else:
        raise BankError(f"{source} is neither a folder nor a .csv file")
    unique: dict[Path, Entry] = {}
    for entry in entries:
        unique.setdefault(entry.path, entry)
    if not unique:
        raise BankError(f"{source} holds no DICOM, PNG or JPEG file")
    return list(unique.values())


def _read_csv(source: Path, key: bytes) -> list[Entry]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BankError(f"{source.name} cannot be read as CSV: {error}") from error
    if rows and "path" not in rows[0]:
        raise BankError(f"{source.name} has the columns {list(rows[0])}; one must be called path")
    entries = []
    for row in rows:
        if not (row["path"] or "").strip():
            continue
        patient = (row.get("patient_id") or row.get("study") or "").strip()
        entries.append(
            Entry(
                (source.parent / row["path"].strip()).resolve(),
                hash_patient(patient, key) if patient else "",
                (row.get("view") or "").strip().upper(),
            )
        )
    return entries
