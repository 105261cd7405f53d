"""``python -m training build-aligned``: parse, call, print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.manifest import Population, Preprocessing
from training.build_aligned import MEAN, STD, AlignedOrder, AlignedSummary, build_aligned
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes


def build(
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV: path, patient_id.")],
    out: Annotated[Path, typer.Option(help="Folder of banks.")],
    name: Annotated[str, typer.Option(help="Name of the bank.")] = "aligned",
    backbone: Annotated[
        Literal["lite0", "lite0-random"], typer.Option(help="The network; with random weights, a control.")
    ] = "lite0",
    k: Annotated[int, typer.Option(min=1, help="Which neighbour's distance counts.")] = 5,
    rescale: Annotated[
        Literal["minmax", "none"], typer.Option(help="Stretch each image to its own range, or keep its scale.")
    ] = "minmax",
    window: Annotated[
        Literal["none", "voi"], typer.Option(help="Ignore or apply the image's VOI LUT or window.")
    ] = "none",
    calibration: Annotated[
        float, typer.Option(help="Held out by patient: a share, or a number of images.")
    ] = 0.2,
    calibration_images: Annotated[
        Path | None, typer.Option(help="Other normals (folder or CSV) that calibrate instead.")
    ] = None,
    fpr: Annotated[float, typer.Option(help="Share of normals that may lie above the threshold.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the draws of the fit.")] = 0,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Let identical images count as often as they are there.")
    ] = False,
    site: Annotated[str, typer.Option(help="Where the normals come from.")] = "",
    population_description: Annotated[str, typer.Option(help="Whom they show, in a sentence.")] = "",
    population_modality: Annotated[
        list[str] | None, typer.Option(help="Score only this modality with the bank; repeatable.")
    ] = None,
    population_view: Annotated[
        list[str] | None, typer.Option(help="Score only this view with the bank; repeatable.")
    ] = None,
    population_institution: Annotated[
        list[str] | None, typer.Option(help="Score only images of this Institution Name; repeatable.")
    ] = None,
    population_minimum_age: Annotated[float | None, typer.Option(help="Whole years, included.")] = None,
    population_maximum_age: Annotated[float | None, typer.Option(help="Whole years, included.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="JSON of [score.eligibility], if the node's differs from the default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Build a bank of registered chests, compared by their feature maps in the normals' principal subspace."""
    with exit_codes(UNUSABLE):
        if calibration <= 0 or (calibration >= 1 and calibration != int(calibration)):
            raise BankError(f"--calibration is {calibration:g}; a share between 0 and 1, or a number of images")
        if not 0 < fpr < 1:
            raise BankError(f"--fpr is {fpr:g}; a share between 0 and 1")
        order = AlignedOrder(
            images=images,
            out=out,
            name=name,
            backbone=backbone,
            preprocessing=Preprocessing(window=window, rescale=rescale, mean=MEAN, std=STD),
            k=k,
            calibration=calibration,
            calibration_images=calibration_images,
            false_positive_rate=fpr,
            seed=seed,
            keep_duplicates=keep_duplicates,
            population=Population(
                description=population_description,
                site=site,
                modalities=tuple(value.upper() for value in population_modality or ()),
                views=tuple(value.upper() for value in population_view or ()),
                minimum_age=population_minimum_age,
                maximum_age=population_maximum_age,
                institutions=tuple(value.upper() for value in population_institution or ()),
            ),
            rules=Eligibility() if rules is None else Eligibility.model_validate_json(rules.read_bytes()),
        )
    with exit_codes(FAILED), Reporter("reading and embedding", "read or embedded") as reporter:
        summary = build_aligned(
            order, created_at=datetime.now(UTC), started=reporter.started, progress=reporter.progress
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


def _text(summary: AlignedSummary) -> str:
    spread = f"mean {summary.calibration_mean:.6g}, std {summary.calibration_std:.6g}"
    shared = f", {summary.shared_with_bank} also in the bank" if summary.shared_with_bank else ""
    test = f", {summary.kept_for_test} kept for a test" if summary.kept_for_test else ""
    lines = [
        f"bank {summary.bank} written to {summary.path}",
        f"  hash         {summary.bank_hash}",
        f"  normals      {summary.normal_images} images of {summary.patients} patients, k {summary.k}",
        f"  subspace     {summary.directions} directions; the bank's files take {summary.megabytes:g} MB",
        f"  calibration  {summary.calibration_images} images ({summary.calibration}), {spread}",
        f"  threshold    {summary.threshold:.6g}",
        f"  left out     {len(summary.skipped)} unusable, {summary.duplicates} duplicates{shared}{test}",
        f"  time         {summary.seconds:.1f} s",
    ]
    lines += [f"  skipped      {file}: {reason}" for file, reason in summary.skipped[:20]]
    if len(summary.skipped) > 20:
        lines.append(f"  skipped      and {len(summary.skipped) - 20} more; --json lists them all")
    lines += [f"  warning      {warning}" for warning in summary.warnings]
    return "\n".join(lines) + "\n"
