"""Images with labels, and the table of their scores: reading, writing, matching two tables.

Owns the formats of the manifest of an evaluation and of ``scores.csv``. Knows nothing of banks or metrics.
A patient's identifier is read to keep images of one patient together and is never written: the table numbers
patients from 1.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from training.manifest import read_entries

LABELS = {"0": 0, "normal": 0, "1": 1, "abnormal": 1}
MOST_VALUES = 20
"""A column with more distinct values, or with one for every other image, makes no subgroups: band ages first."""

_MANIFEST = ("path", "patient_id", "label")


@dataclass(frozen=True, slots=True)
class Case:
    """One image to be evaluated; `patient` is "" where nothing says whose it is."""

    path: Path
    label: int
    patient: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``scores.csv``.

    Attributes
    ----------
    path
        As given, made absolute.
    image
        Shortened SHA-256 of the file, or "".
    patient
        A number for each patient, "" where every image counts as a patient of its own.
    score, percentile, z_score, threshold
        None where the image was not analysed, or the table has no such column.
    refusal
        Why it was not analysed ("code: sentence"), or "".
    controls, columns
        Trivial controls and subgroup columns by name.
    """

    path: str
    label: int
    image: str = ""
    patient: str = ""
    score: float | None = None
    percentile: float | None = None
    z_score: float | None = None
    threshold: float | None = None
    refusal: str = ""
    controls: dict[str, float] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)


_OWN = [f.name for f in fields(Row) if f.name not in ("controls", "columns")]
_NUMBERS = ("score", "percentile", "z_score", "threshold")
_CONTROL = "control: "


def read_cases(images: Path) -> list[Case]:
    """Read the manifest of an evaluation.

    Parameters
    ----------
    images
        CSV with the columns "path" (relative to the CSV) and "label" (0 or normal, 1 or abnormal), optionally
        "patient_id"; every other column makes subgroups.

    Raises
    ------
    BankError
        If a column is missing or a label is something else.
    """
    cases = []
    for number, row in enumerate(_table(images, ("path", "label")), 2):
        cases.append(
            Case(
                (images.parent / row["path"]).resolve(),
                _label(row["label"], images.name, number),
                row.get("patient_id", ""),
                {name: value for name, value in row.items() if name not in _MANIFEST},
            )
        )
    if not cases:
        raise BankError(f"{images.name} names no image")
    return cases


def cases_of_folders(normal: Path, abnormal: Path) -> list[Case]:
    """Return the images of two folders (or of two CSV of paths), normal ones first."""
    return [
        Case(entry.path.resolve(), label, entry.patient)
        for label, source in enumerate((normal, abnormal))
        for entry in read_entries(source, b"grouping within one run")
    ]


def write_scores(path: Path, rows: Sequence[Row]) -> None:
    """Write the table; figures in full precision."""
    controls = list(dict.fromkeys(name for row in rows for name in row.controls))
    columns = list(dict.fromkeys(name for row in rows for name in row.columns))
    staging = path.with_suffix(".writing")
    with staging.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow([*_OWN, *(_CONTROL + name for name in controls), *columns])
        for row in rows:
            own = [getattr(row, name) for name in _OWN]
            out.writerow(
                ["" if value is None else repr(value) if isinstance(value, float) else value for value in own]
                + [repr(row.controls[name]) if name in row.controls else "" for name in controls]
                + [row.columns.get(name, "") for name in columns]
            )
    staging.replace(path)


def read_scores(path: Path) -> list[Row]:
    """Read a table back, ours or anybody's that has the columns "path", "label" and "score".

    Raises
    ------
    BankError
        If a column is missing, or a label or number is none.
    """
    rows = []
    for number, row in enumerate(_table(path, ("path", "label", "score")), 2):
        rows.append(
            Row(
                path=row["path"],
                label=_label(row["label"], path.name, number),
                image=row.get("image", ""),
                patient=row.get("patient", ""),
                refusal=row.get("refusal", ""),
                **{name: _number(row.get(name, ""), path.name, number) for name in _NUMBERS},
                controls={
                    name.removeprefix(_CONTROL): value
                    for name in row
                    if name.startswith(_CONTROL)
                    and (value := _number(row[name], path.name, number)) is not None
                },
                columns={n: v for n, v in row.items() if n not in _OWN and not n.startswith(_CONTROL)},
            )
        )
    return rows


def matched(rows: Sequence[Row], others: Sequence[Row]) -> npt.NDArray[np.float64]:
    """Return the other table's scores in the order of `rows`.

    Rows are matched by path, or by the file's hash where the paths differ.

    Raises
    ------
    BankError
        If the tables are not of the same images with the same labels.
    """
    for key in ("path", "image"):
        known = {getattr(other, key): other for other in others if other.score is not None}
        keys = [getattr(row, key) for row in rows]
        if len(set(keys)) == len(keys) and "" not in keys and set(keys) <= set(known):
            pairs = [(row, known[at]) for row, at in zip(rows, keys, strict=True)]
            differing = [row.path for row, other in pairs if row.label != other.label]
            if differing:
                raise BankError(f"{len(differing)} images have another label there, first {differing[0]}")
            return np.array([other.score for _, other in pairs], dtype=np.float64)
    raise BankError(
        f"a comparison needs scores of the same images: {len(rows)} here, "
        f"{len({row.path for row in rows} & {other.path for other in others})} of them there by path"
    )


def subgroup_columns(rows: Sequence[Row]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the columns that make subgroups, and a sentence for each that does not."""
    columns, warnings = {}, []
    for name in dict.fromkeys(name for row in rows for name in row.columns):
        values = [row.columns.get(name, "") or "not stated" for row in rows]
        distinct = len(set(values))
        if distinct > MOST_VALUES or 2 * distinct > len(rows):
            warnings.append(
                f"column {name} has {distinct} values in {len(rows)} images and makes no subgroups; "
                f"band it to {MOST_VALUES} at most"
            )
        else:
            columns[name] = values
    return columns, warnings


def without_other_columns(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without the columns that make no subgroups: what is in them may name a patient."""
    kept = subgroup_columns(rows)[0]
    return [replace(row, columns={n: v for n, v in row.columns.items() if n in kept}) for row in rows]


def _table(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            rows = [{n: (row[n] or "").strip() for n in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BankError(f"{path.name} cannot be read as CSV: {error}") from error
    missing = [name for name in needed if name not in names]
    if missing:
        raise BankError(f"{path.name} has the columns {names}; {', '.join(missing)} must be among them")
    return rows


def _label(value: str, name: str, number: int) -> int:
    if value.lower() not in LABELS:
        raise BankError(f"{name}, line {number}: label {value[:20]!r}; 0 or normal, 1 or abnormal")
    return LABELS[value.lower()]


def _number(value: str, name: str, number: int) -> float | None:
    if value == "":
        return None
    try:
        read = float(value)
    except ValueError:
        read = float("nan")
    if not np.isfinite(read):
        raise BankError(f"{name}, line {number}: {value[:20]!r} is no finite number")
    return read
