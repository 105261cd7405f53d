"""Small, quick phantoms for any test: arrays and DICOM data sets."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from io import BytesIO
from typing import Any

from pydicom.dataset import FileDataset

from training.phantom_dicom import Form, Photometric, to_dicom
from training.phantoms import Lesion, Phantom, make

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SHAPE = (192, 160)


@lru_cache(maxsize=256)
def chest(
    seed: int = 1, lesion: Lesion | None = None, shape: tuple[int, int] = SHAPE, strength: float = 1.0
) -> Phantom:
    """Return a small phantom; the same one for the same arguments, so do not write into its arrays."""
    return make(seed, lesion=lesion, shape=shape, strength=strength)


def chest_dataset(
    *,
    seed: int = 1,
    lesion: Lesion | None = None,
    shape: tuple[int, int] = SHAPE,
    strength: float = 1.0,
    form: Form = "dx",
    photometric: Photometric = "MONOCHROME2",
    bits: int = 12,
    at: datetime = AT,
    **overrides: Any,
) -> FileDataset:
    """Return a phantom as a DICOM data set with file meta information.

    `overrides` are DICOM keywords (``PatientName="Müller^Jürgen"``); None removes the attribute. File meta
    follows SOPClassUID and SOPInstanceUID.
    """
    dataset = to_dicom(
        chest(seed, lesion, shape, strength), at=at, form=form, photometric=photometric, bits=bits
    )
    for keyword, value in overrides.items():
        if value is not None:
            setattr(dataset, keyword, value)
        elif keyword in dataset:
            delattr(dataset, keyword)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "")
    return dataset


def part10(dataset: FileDataset) -> bytes:
    """Return the data set as the bytes of a Part 10 file."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
