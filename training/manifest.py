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

COLUMNS = ("path", "patient_id", "study", "view", "age", "modality", "site", "split")

SPLITS = {
    **dict.fromkeys(("bank", "train", "training"), "bank"),
    **dict.fromkeys(("calibration", "val", "validation"), "calibration"),
    "test": "test",
}
"""What a CSV may say in "split": stands in the bank, calibrates it, or is kept out of both to judge it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file to embed.

    Attributes
    ----------
    path
        Absolute.
    patient
        Keyed hash of the patient, or "" where only the file itself can say (DICOM) or nobody can.
    view, modality, site
        In upper case where the CSV states them, else "". `site` is compared with Institution Name.
    age
        Years, where the CSV states it.
    split
        "bank", "calibration", "test", or "" where the CSV does not say.
    """

    path: Path
    patient: str = ""
    view: str = ""
    age: float | None = None
    modality: str = ""
    site: str = ""
    split: str = ""


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
        A folder; or a CSV with a header line: "path" is required (relative to the CSV), the other `COLUMNS` are
        optional. "study" stands in for a missing "patient_id"; "age" is in years. What a DICOM file says of
        itself goes before view, age, modality and site of the CSV.
    key
        For `hash_patient`.

    Raises
    ------
    BankError
        If there is no such source, the CSV has no path column, nothing is in it, a value cannot be read, or a
        patient or a file stands in two splits.
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


def read_sources(
    images: Path, calibration_images: Path | None, key: bytes
) -> tuple[list[Entry], list[Entry], int]:
    """Return the files for a bank, those that calibrate it, and the number of those kept for a test.

    Parameters
    ----------
    images
        Folder or CSV of normals; a CSV may say the split of each.
    calibration_images
        Folder or CSV of other normals that calibrate.
    key
        For `hash_patient`.

    Raises
    ------
    BankError
        As `read_entries`, and if both the CSV and `calibration_images` say what calibrates.
    """
    entries = read_entries(images, key)
    split = [entry for entry in entries if entry.split == "calibration"]
    if split and calibration_images is not None:
        raise BankError(f"{images.name} has a split for calibration; leave --calibration-images out")
    others = read_entries(calibration_images, key) if calibration_images else split
    bank = [entry for entry in entries if entry.split in ("", "bank")]
    return bank, others, sum(entry.split == "test" for entry in entries)


def _read_csv(source: Path, key: bytes) -> list[Entry]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BankError(f"{source.name} cannot be read as CSV: {error}") from error
    if rows and "path" not in rows[0]:
        raise BankError(f"{source.name} has the columns {list(rows[0])}; one must be called path")
    entries = []
    splits: dict[object, str] = {}
    for line, row in enumerate(rows, 2):
        values = {column: (row.get(column) or "").strip() for column in COLUMNS}
        if not values["path"]:
            continue
        patient = values["patient_id"] or values["study"]
        entry = Entry(
            path=(source.parent / values["path"]).resolve(),
            patient=hash_patient(patient, key) if patient else "",
            view=values["view"].upper(),
            age=_age(values["age"], source.name, line),
            modality=values["modality"].upper(),
            site=values["site"].upper(),
            split=_split(values["split"], source.name, line),
        )
        for owner in filter(None, (entry.patient, entry.path)):
            if splits.setdefault(owner, entry.split) != entry.split:
                raise BankError(
                    f"{source.name}, line {line}: this patient or file stands in split "
                    f"{splits[owner] or 'none'!r} before and in {entry.split or 'none'!r} here; one is allowed"
                )
        entries.append(entry)
    return entries


def _age(value: str, name: str, line: int) -> float | None:
    try:
        age = float(value) if value else None
    except ValueError:
        age = -1.0
    if age is not None and not 0.0 <= age < 150.0:
        raise BankError(f"{name}, line {line}: the age cannot be read; write years, such as 45 or 0.5")
    return age


def _split(value: str, name: str, line: int) -> str:
    if value and value.lower() not in SPLITS:
        raise BankError(f"{name}, line {line}: split is {value[:40]!r}; known are: {', '.join(SPLITS)}")
    return SPLITS[value.lower()] if value else ""
