"""``python -m training train-salad``: parse, call, print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.domain.errors import BankError
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.salad import K
from dicom_node.score.salad_network import CHANNELS, SIZE, levels
from training import bank_options as opts
from training.salad_build import SaladOrder, SaladSummary, build_salad
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes
from training.train_salad import Epoch, Recipe, pick_device

PAPER = Recipe()


def train_salad(
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV: path, patient_id.")],
    out: opts.Out,
    name: opts.Name = "salad",
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
    rescale: opts.Rescale = "minmax",
    window: opts.Window = "none",
    calibration: opts.Share = 0.2,
    calibration_images: opts.CalibrationImages = None,
    fpr: opts.Fpr = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of split, first weights, order and flips.")] = 0,
    keep_duplicates: opts.KeepDuplicates = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="A killed training loses at most this much, or one epoch.")
    ] = 20.0,
    site: opts.Site = "",
    population_description: opts.Description = "",
    population_modality: opts.Modalities = None,
    population_view: opts.Views = None,
    population_institution: opts.Institutions = None,
    population_minimum_age: opts.Age = None,
    population_maximum_age: opts.Age = None,
    rules: opts.Rules = None,
    as_json: opts.AsJson = False,
) -> None:
    """Train SALAD on normals and build its bank. A training that was killed goes on from its checkpoint."""
    with exit_codes(UNUSABLE):
        _check(size)
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
            calibration=opts.checked_share(calibration),
            calibration_images=calibration_images,
            false_positive_rate=opts.checked_rate(fpr),
            keep_duplicates=keep_duplicates,
            population=opts.population(
                population_description,
                site,
                population_modality,
                population_view,
                population_institution,
                population_minimum_age,
                population_maximum_age,
            ),
            rules=opts.eligibility(rules),
            device=pick_device(device),
            checkpoint_seconds=checkpoint_seconds,
        )
    with exit_codes(FAILED), Reporter("reading", "read") as reporter:
        summary = build_salad(
            order,
            created_at=datetime.now(UTC),
            started=reporter.started,
            progress=reporter.progress,
            trained=lambda epoch: tell_epoch(epoch, order.recipe),
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


def _check(size: int) -> None:
    try:
        levels(size)
    except ValueError as error:
        raise BankError(f"--size: {error}") from error


def tell_epoch(epoch: Epoch, recipe: Recipe | None = None) -> None:
    """Write a line of an epoch that ended to standard error; with the recipe, how many there are."""
    rounds, epochs = (f" of {recipe.rounds}", f" of {recipe.epochs}") if recipe else ("", "")
    sys.stderr.write(
        f"round {epoch.round}{rounds}, epoch {epoch.epoch + 1}{epochs}: "
        f"loss {epoch.total:.4f} (neighbourhood {epoch.neighbourhood:.4f}, "
        f"reconstruction {epoch.reconstruction:.4f}), {epoch.anchors} anchors\n"
    )
    sys.stderr.flush()


def _text(summary: SaladSummary) -> str:
    losses = f"loss {summary.first_loss:.4f} to {summary.last_loss:.4f}"
    own = [
        f"  normals      {summary.normal_images} images of {summary.patients} patients, K {summary.k}",
        f"  training     {summary.epochs} epochs on {summary.device}, {losses}",
        f"  curves       {', '.join(summary.curves)}",
    ]
    return opts.told(summary, own, f"{summary.seconds:.1f} s")
