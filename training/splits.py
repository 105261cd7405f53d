"""Who stands on which side: by patient, from a seed, and the same again when other patients come or go.

A patient's place in [0, 1) follows from the seed and the patient's identifier alone. What is written names
patients by a keyed hash whose key is thrown away.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dicom_node.domain.errors import BankError, CannotUnderstandError
from dicom_node.score.durable import write_synced
from dicom_node.score.files import is_picture, parse_dicom, read_bytes
from training.dataset import with_header
from training.manifest import COLUMNS, Entry, hash_patient, read_entries
from training.scored import Case

_DIGITS = 13


@dataclass(frozen=True, slots=True)
class Described:
    """A file and what it states of itself.

    Attributes
    ----------
    entry
        With the header's values; its patient is never "".
    file_id
        Shortened SHA-256 of the file, "" where it cannot be read.
    place
        The patient's, in [0, 1).
    """

    entry: Entry
    file_id: str
    place: float


def describe(source: Path, seed: int) -> list[Described]:
    """Read every file of a folder or CSV, without decoding pixels.

    A file that states no patient is a patient of its own.

    Raises
    ------
    BankError
        As `read_entries`.
    """
    key = _key(seed)
    return [_described(entry, key) for entry in read_entries(source, key)]


def describe_cases(cases: Sequence[Case], seed: int) -> list[Described]:
    """Read the files of an evaluation likewise, in order: the same seed gives the same patient the same hash."""
    key = _key(seed)
    entries = (Entry(case.path, hash_patient(case.patient, key) if case.patient else "") for case in cases)
    return [_described(entry, key) for entry in entries]


def _key(seed: int) -> bytes:
    return f"splits by seed {seed}".encode()


def _described(entry: Entry, key: bytes) -> Described:
    file_id = ""
    try:
        content = read_bytes(entry.path)
        file_id = hashlib.sha256(content).hexdigest()[:32]
        if not is_picture(content):
            ds = parse_dicom(content, entry.path.name, stop_before_pixels=True)
            entry = with_header(entry, ds, key)
    except CannotUnderstandError:
        pass  # whoever reads the pixels says why
    patient = entry.patient or hash_patient(file_id or str(entry.path), key)
    place = int(patient[:_DIGITS], 16) / 16**_DIGITS
    return Described(replace(entry, patient=patient), file_id, place)


def split(described: Sequence[Described], calibration: float, test: float) -> list[Described]:
    """Return the files with a split each; those that had one before are split anew.

    Parameters
    ----------
    calibration, test
        Expected shares of the patients, each from 0, together below 1.

    Raises
    ------
    BankError
        If the shares leave nothing for the bank.
    """
    if min(calibration, test) < 0 or calibration + test >= 1:
        raise BankError(f"the shares {calibration:g} and {test:g} leave nothing for the bank")

    def side(place: float) -> str:
        return "test" if place < test else "calibration" if place < test + calibration else "bank"

    return [replace(one, entry=replace(one.entry, split=side(one.place))) for one in described]


def write_manifest(path: Path, described: Sequence[Described], key: bytes) -> dict[str, int]:
    """Write a CSV that `read_entries` reads, patients by keyed hash; return how many files each split has."""
    out = io.StringIO()
    table = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    table.writeheader()
    for one in described:
        entry = one.entry
        table.writerow(
            {
                "path": str(entry.path.absolute()),
                "patient_id": hash_patient(entry.patient, key),
                "view": entry.view,
                "age": "" if entry.age is None else f"{entry.age:.2f}",
                "modality": entry.modality,
                "site": entry.site,
                "split": entry.split,
            }
        )
    staging = path.with_name(f"{path.name}.writing")
    write_synced(staging, out.getvalue().encode())
    staging.replace(path)
    return dict(Counter(one.entry.split for one in described))
