"""``python -m training``: parse, call, print. Exit codes: 0 done, 1 work failed, 2 unusable options."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import known
from dicom_node.score.head import Head
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.view_names import DEFAULT_VIEWS, parse_views
from training import aligned_cli
from training import bank_options as opts
from training.build import Order, Summary
from training.build import build as build_bank
from training.calibrate import LEAVE_ONE_OUT
from training.evaluate_cli import evaluate
from training.head_cli import train_head
from training.head_recipe import read_head
from training.order import DEFAULT_PATCHES, IndexOrder
from training.rebuild_cli import rebuild, split
from training.salad_cli import train_salad
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Build and judge banks of normal chests."
)
app.command()(evaluate)
app.command()(rebuild)
app.command()(split)
app.command("train-head")(train_head)
app.command("train-salad")(train_salad)
app.command("build-aligned")(aligned_cli.build)


Normalise = Literal["imagenet", "half", "127"]


@app.command()
def build(
    images: Annotated[
        Path,
        typer.Option(
            help="Folder of normals, or a CSV: path, patient_id, view, age, modality, site, split. A PNG or "
            "JPEG counts as a patient of its own unless the CSV says otherwise."
        ),
    ],
    out: opts.Out,
    name: opts.Name = "normals",
    backbone: Annotated[str, typer.Option(help=f"lite0, lite0-random (a control), {known()}.")] = "lite0",
    weights: Annotated[
        Path | None,
        typer.Option(help="Its weights file, for a name with a colon; torchvision: downloads its own."),
    ] = None,
    weights_licence: Annotated[str, typer.Option(help="Licence of that file, for manifest and report.")] = "",
    weights_training_data: Annotated[str, typer.Option(help="What that file was trained on.")] = "",
    head: Annotated[
        Path | None, typer.Option(help="A head made by train-head; without one, features are used as they are.")
    ] = None,
    views: Annotated[
        str, typer.Option(help="Comma-separated views; random:SEED:A stands for A crops drawn from SEED.")
    ] = ",".join(DEFAULT_VIEWS),
    k: Annotated[int, typer.Option(min=1, help="Which neighbour's distance counts.")] = 1,
    normalise: Annotated[
        Normalise, typer.Option(help="ImageNet's mean and std; 0.5; or (x - 127/255) / (128/255).")
    ] = "imagenet",
    rescale: opts.Rescale = "minmax",
    window: opts.Window = "none",
    calibration: Annotated[
        str, typer.Option(help=f"Held out by patient: a share, a number of images; or {LEAVE_ONE_OUT}.")
    ] = "0.2",
    calibration_images: opts.CalibrationImages = None,
    fpr: opts.Fpr = 0.05,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    keep_duplicates: opts.KeepDuplicates = False,
    drop_outliers: Annotated[
        float,
        typer.Option(
            help="Share of the bank to leave out, the images farthest from the others first (0 to 0.5)."
        ),
    ] = 0.0,
    patches: Annotated[
        int, typer.Option(min=0, help="Patches of normals that the bank keeps for heat maps; 0 for none.")
    ] = DEFAULT_PATCHES,
    thumbnails: Annotated[
        bool,
        typer.Option(
            help="Keep small pictures of the normals, to show beside an image; the bank then shows patients."
        ),
    ] = False,
    index: Annotated[
        Literal["auto", "flat", "ivf-flat", "ivf-fp16"],
        typer.Option(help="flat compares every vector; ivf probes lists, recall measured; auto goes by size."),
    ] = "auto",
    flat_up_to: Annotated[
        int, typer.Option(min=1, help="Vectors up to which auto takes flat; above, ivf-flat.")
    ] = 1_000_000,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Embed here or on a Ray cluster; the bank is the same.")
    ] = "local",
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
    """Build a bank of normals. A build that was killed goes on where it was when started again."""
    with exit_codes(UNUSABLE):
        mean, std = NORMALISATIONS[normalise]
        trained, statistics = (Head(), b"") if head is None else read_head(head)
        order = Order(
            images=images,
            out=out,
            name=name,
            backbone=backbone,
            weights=weights,
            weights_licence=weights_licence,
            weights_training_data=weights_training_data,
            views=parse_views(views),
            k=k,
            preprocessing=Preprocessing(window=window, rescale=rescale, mean=mean, std=std),
            calibration=_calibration(calibration),
            calibration_images=calibration_images,
            false_positive_rate=opts.checked_rate(fpr),
            seed=seed,
            keep_duplicates=keep_duplicates,
            drop_outliers=_share(drop_outliers),
            patches=patches,
            thumbnails=thumbnails,
            index=IndexOrder(index, flat_up_to),
            engine=engine,
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
            head=trained,
            statistics=statistics,
        )
    with exit_codes(FAILED), Reporter() as reporter:
        summary = build_bank(
            order, created_at=datetime.now(UTC), started=reporter.started, progress=reporter.progress
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


@app.command()
def phantoms(
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    count: Annotated[int, typer.Option(min=1, help="How many images.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the first; the same seed draws the same chest.")] = 0,
    lesion: Annotated[
        Literal["opacity", "nodule", "effusion", "cardiomegaly"] | None,
        typer.Option(help="What to plant into every one of them; nothing for normal chests."),
    ] = None,
    form: Annotated[Literal["dx", "cr", "png"], typer.Option(help="DX or CR as DICOM, or PNG.")] = "dx",
    rows: Annotated[int, typer.Option(min=64, max=4096, help="Height; the width follows.")] = 1024,
) -> None:
    """Draw phantoms: procedural frontal chests, which are no patients."""
    from training.phantoms_cli import run

    with exit_codes(FAILED):
        run(out, count, seed, lesion, form, shape=(rows, round(rows * 840 / 1024)))


def _text(summary: Summary) -> str:
    reused = f", {summary.reused} reused from an earlier attempt" if summary.reused else ""
    dropped = f", {summary.dropped} of the farthest left out" if summary.dropped else ""
    own = [
        f"  normals      {summary.normal_images} images of {summary.patients} patients, {summary.vectors} vectors",
        f"  outliers     {summary.flagged} flagged{dropped}; see {summary.review}",
    ]
    return opts.told(summary, own, f"{summary.seconds:.1f} s, {summary.images_per_second:.1f} images/s{reused}")


def _calibration(value: str) -> float | str:
    if value == LEAVE_ONE_OUT:
        return value
    try:
        number = float(value)
    except ValueError:
        raise BankError(
            f"--calibration is {value!r}; a share between 0 and 1, a number of images, or {LEAVE_ONE_OUT}"
        ) from None
    return opts.checked_share(number, f", or {LEAVE_ONE_OUT}")


def _share(value: float) -> float:
    if not 0 <= value < 0.5:
        raise BankError(f"--drop-outliers is {value:g}; a share from 0 to below 0.5")
    return value
