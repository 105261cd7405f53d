"""``python -m training build-aligned``: parse, call, print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.score.manifest import Preprocessing
from training import bank_options as opts
from training.build_aligned import MEAN, STD, AlignedOrder, AlignedSummary, build_aligned
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes


def build(
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV: path, patient_id.")],
    out: opts.Out,
    name: opts.Name = "aligned",
    backbone: Annotated[
        Literal["lite0", "lite0-random"], typer.Option(help="The network; with random weights, a control.")
    ] = "lite0",
    k: Annotated[int, typer.Option(min=1, help="Which neighbour's distance counts.")] = 5,
    rescale: opts.Rescale = "minmax",
    window: opts.Window = "none",
    calibration: opts.Share = 0.2,
    calibration_images: opts.CalibrationImages = None,
    fpr: opts.Fpr = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the split and of the draws of the fit.")] = 0,
    keep_duplicates: opts.KeepDuplicates = False,
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
    """Build a bank of registered chests, compared by their feature maps in the normals' principal subspace."""
    with exit_codes(UNUSABLE):
        order = AlignedOrder(
            images=images,
            out=out,
            name=name,
            backbone=backbone,
            preprocessing=Preprocessing(window=window, rescale=rescale, mean=MEAN, std=STD),
            k=k,
            calibration=opts.checked_share(calibration),
            calibration_images=calibration_images,
            false_positive_rate=opts.checked_rate(fpr),
            seed=seed,
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
        )
    with exit_codes(FAILED), Reporter("reading and embedding", "read or embedded") as reporter:
        summary = build_aligned(
            order, created_at=datetime.now(UTC), started=reporter.started, progress=reporter.progress
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


def _text(summary: AlignedSummary) -> str:
    own = [
        f"  normals      {summary.normal_images} images of {summary.patients} patients, k {summary.k}",
        f"  subspace     {summary.directions} directions; the bank's files take {summary.megabytes:g} MB",
    ]
    return opts.told(summary, own, f"{summary.seconds:.1f} s")
