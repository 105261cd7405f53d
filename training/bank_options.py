"""The options that the commands building banks share, of whatever kind, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

import typer

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.manifest import Population

Out = Annotated[Path, typer.Option(help="Folder of banks.")]
Name = Annotated[str, typer.Option(help="Name of the bank.")]
Rescale = Annotated[
    Literal["minmax", "none"], typer.Option(help="Stretch each image to its own range, or keep its scale.")
]
Window = Annotated[Literal["none", "voi"], typer.Option(help="Ignore or apply the image's VOI LUT or window.")]
Share = Annotated[float, typer.Option(help="Held out by patient: a share, or a number of images.")]
CalibrationImages = Annotated[
    Path | None, typer.Option(help="Other normals (folder or CSV) that calibrate instead.")
]
Fpr = Annotated[float, typer.Option(help="Share of normals that may lie above the threshold.")]
KeepDuplicates = Annotated[
    bool, typer.Option("--keep-duplicates", help="Let identical images count as often as they are there.")
]
Site = Annotated[str, typer.Option(help="Where the normals come from.")]
Description = Annotated[str, typer.Option(help="Whom they show, in a sentence.")]
Modalities = Annotated[
    list[str] | None, typer.Option(help="Score only this modality with the bank; repeatable.")
]
Views = Annotated[list[str] | None, typer.Option(help="Score only this view with the bank; repeatable.")]
Institutions = Annotated[
    list[str] | None, typer.Option(help="Score only images of this Institution Name; repeatable.")
]
Age = Annotated[float | None, typer.Option(help="Whole years, included.")]
Rules = Annotated[
    Path | None, typer.Option(help="JSON of [score.eligibility], if the node's differs from the default.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")]


class Summed(Protocol):
    """What the summaries of all kinds have in common."""

    @property
    def bank(self) -> str:
        """Name."""

    @property
    def path(self) -> str:
        """Folder."""

    @property
    def bank_hash(self) -> str:
        """Hash."""

    @property
    def calibration(self) -> str:
        """Where the calibration scores come from."""

    @property
    def calibration_images(self) -> int:
        """How many there are."""

    @property
    def calibration_mean(self) -> float:
        """Their mean."""

    @property
    def calibration_std(self) -> float:
        """Their standard deviation."""

    @property
    def threshold(self) -> float:
        """Of the bank."""

    @property
    def duplicates(self) -> int:
        """Files left out because another shows the same."""

    @property
    def shared_with_bank(self) -> int:
        """Calibration images left out because the bank has image or patient."""

    @property
    def kept_for_test(self) -> int:
        """Files whose split is "test"."""

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """File names and why each was left out."""

    @property
    def warnings(self) -> list[str]:
        """Sentences."""


def population(
    description: str,
    site: str,
    modalities: list[str] | None,
    views: list[str] | None,
    institutions: list[str] | None,
    minimum_age: float | None,
    maximum_age: float | None,
) -> Population:
    """Return the population that the options describe."""
    return Population(
        description=description,
        site=site,
        modalities=_upper(modalities),
        views=_upper(views),
        institutions=_upper(institutions),
        minimum_age=minimum_age,
        maximum_age=maximum_age,
    )


def eligibility(rules: Path | None) -> Eligibility:
    """Return the rules of a file, or the default ones."""
    return Eligibility() if rules is None else Eligibility.model_validate_json(rules.read_bytes())


def checked_share(value: float, or_else: str = "") -> float:
    """Return what is held out; raises BankError if it is neither a share nor a number of images."""
    if value <= 0 or (value >= 1 and value != int(value)):
        raise BankError(f"--calibration is {value:g}; a share between 0 and 1, or a number of images{or_else}")
    return value


def checked_rate(value: float) -> float:
    """Return the false-positive rate; raises BankError if it is none."""
    if not 0 < value < 1:
        raise BankError(f"--fpr is {value:g}; a share between 0 and 1")
    return value


def told(summary: Summed, own: Sequence[str], time: str) -> str:
    """Return a summary for people.

    Parameters
    ----------
    own
        Lines of this kind of bank.
    time
        What the last line before files and warnings says.
    """
    spread = f"mean {summary.calibration_mean:.6g}, std {summary.calibration_std:.6g}"
    shared = f", {summary.shared_with_bank} also in the bank" if summary.shared_with_bank else ""
    test = f", {summary.kept_for_test} kept for a test" if summary.kept_for_test else ""
    lines = [
        f"bank {summary.bank} written to {summary.path}",
        f"  hash         {summary.bank_hash}",
        *own,
        f"  calibration  {summary.calibration_images} images ({summary.calibration}), {spread}",
        f"  threshold    {summary.threshold:.6g}",
        f"  left out     {len(summary.skipped)} unusable, {summary.duplicates} duplicates{shared}{test}",
        f"  time         {time}",
    ]
    lines += [f"  skipped      {file}: {reason}" for file, reason in summary.skipped[:20]]
    if len(summary.skipped) > 20:
        lines.append(f"  skipped      and {len(summary.skipped) - 20} more; --json lists them all")
    lines += [f"  warning      {warning}" for warning in summary.warnings]
    return "\n".join(lines) + "\n"


def _upper(values: list[str] | None) -> tuple[str, ...]:
    return tuple(value.upper() for value in values or ())
