"""``python -m training phantoms``: a folder of phantoms with a manifest.

Owns the files and their names. May not know how a phantom is made. Files are a function of the arguments.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.phantom_dicom import to_dicom
from training.phantoms import SHAPE, Lesion, Phantom, make

_AT = datetime(2020, 1, 1, 12, 0, tzinfo=UTC)
"""A phantom was never in front of a detector; one fixed moment keeps the files reproducible."""

_THUMBNAIL = 256
_SHEET_COLUMNS = 6
_SHEET_ROWS = 6


def run(
    out: Path,
    count: int,
    seed: int = 0,
    lesion: Lesion | None = None,
    form: Literal["dx", "cr", "png"] = "dx",
    shape: tuple[int, int] = SHAPE,
    strength: float = 1.0,
) -> list[Path]:
    """Write `count` phantoms of the seeds `seed`, `seed` + 1, ..., one study each, and ``manifest.csv``.

    With `form` "png" a contact sheet of the first 36 is written beside the folder, as ``<out>-sheet.png``
    (not inside, where a bank builder would take it for a chest).

    Parameters
    ----------
    out
        Folder; made where it is missing. Files of the same names are replaced.
    count
        How many, at least 1.
    lesion, shape, strength
        See `training.phantoms.make`.
    form
        "dx" and "cr" are DICOM Part 10 files, "png" 8 bit grey.

    Returns
    -------
    list of Path
        The images, in the order of their seeds.

    Raises
    ------
    ValueError
        If an argument is out of its range.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more")
    if form not in ("dx", "cr", "png"):
        raise ValueError(f"form is {form!r}; it must be one of dx, cr, png")
    out.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    thumbnails: list[NDArray[np.uint8]] = []
    with (out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "patient_id", "lesion"])
        for number in range(seed, seed + count):
            phantom = make(number, lesion=lesion, shape=shape, strength=strength)
            path = (
                out
                / f"phantom-{number:06d}{'-' + lesion if lesion else ''}.{'png' if form == 'png' else 'dcm'}"
            )
            if form == "png":
                Image.fromarray(grey8(phantom)).save(path)
                if len(thumbnails) < _SHEET_COLUMNS * _SHEET_ROWS:
                    thumbnails.append(_thumbnail(phantom))
            else:
                to_dicom(phantom, at=_AT, form=form).save_as(path, enforce_file_format=True)
            rows.writerow([path.name, f"PHANTOM-{number}", lesion or ""])
            paths.append(path)
    if thumbnails:
        Image.fromarray(contact_sheet(thumbnails)).save(out.with_name(f"{out.resolve().name}-sheet.png"))
    return paths


def grey8(phantom: Phantom) -> NDArray[np.uint8]:
    """Return the picture in 8 bits, (H, W) uint8."""
    return np.asarray(np.rint(phantom.image * 255.0), dtype=np.uint8)


def contact_sheet(pictures: list[NDArray[np.uint8]], columns: int = _SHEET_COLUMNS) -> NDArray[np.uint8]:
    """Return equally large pictures side by side, row after row, (H, W) uint8."""
    height, width = pictures[0].shape
    columns = min(columns, len(pictures))
    sheet = np.zeros((-(-len(pictures) // columns) * height, columns * width), dtype=np.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = picture
    return sheet


def _thumbnail(phantom: Phantom) -> NDArray[np.uint8]:
    height, width = phantom.image.shape
    size = (max(1, round(_THUMBNAIL * width / height)), _THUMBNAIL)
    return np.asarray(Image.fromarray(grey8(phantom)).resize(size, Image.Resampling.LANCZOS))
