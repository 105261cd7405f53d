"""From an order to the square images of both sides of a bank: those that stand in it and those that calibrate it.

For the kinds that learn from pictures. Knows nothing of networks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dicom_node.config import Eligibility
from dicom_node.score.manifest import Population, Preprocessing
from training.dataset import Reader
from training.embed import patient_key
from training.manifest import read_sources
from training.salad_images import Pictures, divide_pictures, read_pictures
from training.stated import require


class Pictured(Protocol):
    """What is needed of an order."""

    @property
    def images(self) -> Path:
        """Folder or CSV of normals."""

    @property
    def calibration(self) -> float:
        """Share or number of images held out."""

    @property
    def calibration_images(self) -> Path | None:
        """Folder or CSV of other normals that calibrate instead."""

    @property
    def keep_duplicates(self) -> bool:
        """Whether an image that is there several times counts several times."""

    @property
    def population(self) -> Population:
        """Whom the bank may score."""

    @property
    def rules(self) -> Eligibility:
        """Which images are taken."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The images of a bank, and what was left out.

    Attributes
    ----------
    bank, held
        What stands in the bank, and what calibrates it; no patient is on both sides.
    duplicates
        Files left out because another shows the same.
    shared
        Calibration images left out because image or patient stands in the bank.
    kept_for_test
        Files whose split is "test".
    skipped
        (file name, reason) of each file left out.
    reused
        How many files came from shards finished before.
    """

    bank: Pictures
    held: Pictures
    duplicates: int
    shared: int
    kept_for_test: int
    skipped: list[tuple[str, str]]
    reused: int

    @property
    def patients(self) -> int:
        """Return whose images stand in the bank, counted."""
        return len({item.patient for item in self.bank.items})


def read_sides(
    order: Pictured,
    preprocessing: Preprocessing,
    seed: int,
    folder: Path,
    started: Callable[[int], None],
    progress: Callable[[int], None],
) -> Sides:
    """Read every file once and divide the images by patient.

    Parameters
    ----------
    preprocessing
        How an image becomes a square.
    seed
        Of the split.
    folder
        The build's work folder.
    started, progress
        Told how many files there are, and how many each step has read.

    Raises
    ------
    BankError
        If there are too few on one side.
    """
    key = patient_key(folder)
    reader = Reader(preprocessing, ("squash",), order.rules, key, order.population)
    entries, others, kept_for_test = read_sources(order.images, order.calibration_images, key)
    started(len(entries) + len(others))
    read = read_pictures(entries, reader, folder, progress)
    separate = read_pictures(others, reader, folder, progress) if others else None
    usable = read if order.keep_duplicates else read.distinct()
    bank, held, shared = divide_pictures(usable, separate, order.calibration, seed)
    require(len(bank), len(entries), read.skipped)
    return Sides(
        bank,
        held,
        duplicates=len(read) - len(usable),
        shared=shared,
        kept_for_test=kept_for_test,
        skipped=read.skipped + (separate.skipped if separate else []),
        reused=read.reused + (separate.reused if separate else 0),
    )
