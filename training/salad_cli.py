"""``python -m training train-salad``: parse, call, print."""

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
from dicom_node.score.salad import K
from dicom_node.score.salad_network import CHANNELS, SIZE, levels
from training.salad_build import SaladOrder, SaladSummary, build_salad
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes
from training.train_salad import Epoch, Recipe, pick_device

PAPER = Recipe()


def train_salad(
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV: path, patient_id.")],
    out: Annotated[Path, typer.Option(help="Folder of banks.")],
    name: Annotated[str, typer.Option(help="Name of the bank.")] = "salad",
    rounds: Annotated[int, typer.Option(min=0, max=10, help="The last round; the first is 0.")] = PAPER.rounds,
    epochs: Annotated[int, typer.Option(min=1, help="Of each round.")] = PAPER.epochs,
    size: Annotated[int, typer.Option(help="Side of the input: 32, 64, 128 or 256 pixels.")] = SIZE,
    base: Annotated[int, typer.Option(min=1, help="Channels of the network's first level.")] = CHANNELS,
    batch: Annotated[int, typer.Option(min=1, help="Images in a step.")] = PAPER.batch,
    reconstruction: Annotated[
        Literal["l1", "mse"], typer.Option(help="Loss of the reconstruction; the paper's text says mse.")
    ] = "l1",
    k: Annotated[int, typer.Option(min=1, help="Nearest memory rows that a score looks at.")] = K,
    weighting: Annotated[
        Literal["mean", "weighted"], typer.Option(help="How their angles are combined.")
    ] = "mean",
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
    seed: Annotated[int, typer.Option(min=0, help="Of split, first weights, order and flips.")] = 0,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Let identical images count as often as they are there.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="A killed training loses at most this much, or one epoch.")
    ] = 20.0,
    site: Annotated[str, typer.Option(help="Where the normals come from.")] = "",
    population_description: Annotated[str, typer.Option(help="Whom they show, in a sentence.")] = "",
    population_modality: Annotated[
        list[str] | None, typer.Option(help="Score only this modality with the bank; repeatable.")
    ] = None,
    population_view: Annotated[
        list[str] | None, typer.Option(help="Score only this view with the bank; repeatable.")
    ] = None,
    population_minimum_age: Annotated[float | None, typer.Option(help="Whole years, included.")] = None,
    population_maximum_age: Annotated[float | None, typer.Option(help="Whole years, included.")] = None,
    rules: Annotated[
        Path | None, typer.Option(help="JSON of [score.eligibility], if the node's differs from the default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Train SALAD on normals and build its bank. A training that was killed goes on from its checkpoint."""
    with exit_codes(UNUSABLE):
        _check(size, calibration, fpr)
        order = SaladOrder(
            images=images,
            out=out,
            name=name,
            recipe=Recipe(
                size=size,
                channels=base,
                rounds=rounds,
                epochs=epochs,
                batch=batch,
                reconstruction=reconstruction,
                seed=seed,
            ),
            preprocessing=Preprocessing(window=window, rescale=rescale),
            k=k,
            weighting=weighting,
            calibration=calibration,
            calibration_images=calibration_images,
            false_positive_rate=fpr,
            keep_duplicates=keep_duplicates,
            population=Population(
                description=population_description,
                site=site,
                modalities=tuple(value.upper() for value in population_modality or ()),
                views=tuple(value.upper() for value in population_view or ()),
                minimum_age=population_minimum_age,
                maximum_age=population_maximum_age,
            ),
            rules=Eligibility() if rules is None else Eligibility.model_validate_json(rules.read_bytes()),
            device=pick_device(device),
            checkpoint_seconds=checkpoint_seconds,
        )
    with exit_codes(FAILED), Reporter("reading", "read") as reporter:
        summary = build_salad(
            order,
            created_at=datetime.now(UTC),
            started=reporter.started,
            progress=reporter.progress,
            trained=lambda epoch: _tell(epoch, order.recipe),
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


def _check(size: int, calibration: float, fpr: float) -> None:
    try:
        levels(size)
    except ValueError as error:
        raise BankError(f"--size: {error}") from error
    if calibration <= 0 or (calibration >= 1 and calibration != int(calibration)):
        raise BankError(f"--calibration is {calibration:g}; a share between 0 and 1, or a number of images")
    if not 0 < fpr < 1:
        raise BankError(f"--fpr is {fpr:g}; a share between 0 and 1")


def _tell(epoch: Epoch, recipe: Recipe) -> None:
    sys.stderr.write(
        f"round {epoch.round} of {recipe.rounds}, epoch {epoch.epoch + 1} of {recipe.epochs}: "
        f"loss {epoch.total:.4f} (neighbourhood {epoch.neighbourhood:.4f}, "
        f"reconstruction {epoch.reconstruction:.4f}), {epoch.anchors} anchors\n"
    )
    sys.stderr.flush()


def _text(summary: SaladSummary) -> str:
    spread = f"mean {summary.calibration_mean:.6g}, std {summary.calibration_std:.6g}"
    losses = f"loss {summary.first_loss:.4f} to {summary.last_loss:.4f}"
    shared = f", {summary.shared_with_bank} also in the bank" if summary.shared_with_bank else ""
    test = f", {summary.kept_for_test} kept for a test" if summary.kept_for_test else ""
    lines = [
        f"bank {summary.bank} written to {summary.path}",
        f"  hash         {summary.bank_hash}",
        f"  normals      {summary.normal_images} images of {summary.patients} patients, K {summary.k}",
        f"  training     {summary.epochs} epochs on {summary.device}, {losses}",
        f"  curves       {', '.join(summary.curves)}",
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
