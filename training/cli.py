"""``python -m training``: parse, call, print. Exit codes: 0 done, 1 work failed, 2 unusable options."""

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
from dicom_node.score.backbone import known
from dicom_node.score.head import Head
from dicom_node.score.manifest import NORMALISATIONS, Population, Preprocessing
from dicom_node.score.views import DEFAULT_VIEWS, parse_views
from training import aligned_cli
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
    out: Annotated[Path, typer.Option(help="Folder of banks.")],
    name: Annotated[str, typer.Option(help="Name of the bank.")] = "normals",
    backbone: Annotated[str, typer.Option(help=f"lite0, lite0-random (a control), {known()}.")] = "lite0",
    weights: Annotated[Path | None, typer.Option(help="Its weights file, for a name with a colon.")] = None,
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
    rescale: Annotated[
        Literal["minmax", "none"], typer.Option(help="Stretch each image to its own range, or keep its scale.")
    ] = "minmax",
    window: Annotated[
        Literal["none", "voi"], typer.Option(help="Ignore or apply the image's VOI LUT or window.")
    ] = "none",
    calibration: Annotated[
        str, typer.Option(help=f"Held out by patient: a share, a number of images; or {LEAVE_ONE_OUT}.")
    ] = "0.2",
    calibration_images: Annotated[
        Path | None, typer.Option(help="Other normals (folder or CSV) that calibrate instead.")
    ] = None,
    fpr: Annotated[float, typer.Option(help="Share of normals that may lie above the threshold.")] = 0.05,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Let identical images count as often as they are there.")
    ] = False,
    drop_outliers: Annotated[
        float,
        typer.Option(
            help="Share of the bank to leave out, the images farthest from the others first (0 to 0.5)."
        ),
    ] = 0.0,
    patches: Annotated[
        int, typer.Option(min=0, help="Patches of normals that the bank keeps for heat maps; 0 for none.")
    ] = DEFAULT_PATCHES,
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
            false_positive_rate=_rate(fpr),
            seed=seed,
            keep_duplicates=keep_duplicates,
            drop_outliers=_share(drop_outliers),
            patches=patches,
            index=IndexOrder(index, flat_up_to),
            engine=engine,
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
    shared = f", {summary.shared_with_bank} also in the bank" if summary.shared_with_bank else ""
    reused = f", {summary.reused} reused from an earlier attempt" if summary.reused else ""
    counts = f"{summary.normal_images} images of {summary.patients} patients, {summary.vectors} vectors"
    spread = f"mean {summary.calibration_mean:.6g}, std {summary.calibration_std:.6g}"
    lines = [
        f"bank {summary.bank} written to {summary.path}",
        f"  hash         {summary.bank_hash}",
        f"  normals      {counts}",
        f"  calibration  {summary.calibration_images} images ({summary.calibration}), {spread}",
        f"  threshold    {summary.threshold:.6g}",
        f"  left out     {len(summary.skipped)} unusable, {summary.duplicates} duplicates{shared}",
        f"  time         {summary.seconds:.1f} s, {summary.images_per_second:.1f} images/s{reused}",
    ]
    dropped = f", {summary.dropped} of the farthest left out" if summary.dropped else ""
    lines.append(f"  outliers     {summary.flagged} flagged{dropped}; see {summary.review}")
    if summary.kept_for_test:
        lines.append(f"  test         {summary.kept_for_test} files kept out of the bank, as their split says")
    lines += [f"  skipped      {name}: {reason}" for name, reason in summary.skipped[:20]]
    if len(summary.skipped) > 20:
        lines.append(f"  skipped      and {len(summary.skipped) - 20} more; --json lists them all")
    lines += [f"  warning      {warning}" for warning in summary.warnings]
    return "\n".join(lines) + "\n"


def _calibration(value: str) -> float | str:
    if value == LEAVE_ONE_OUT:
        return value
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if number <= 0 or (number >= 1 and number != int(number)):
        raise BankError(
            f"--calibration is {value!r}; a share between 0 and 1, a number of images, or {LEAVE_ONE_OUT}"
        )
    return number


def _share(value: float) -> float:
    if not 0 <= value < 0.5:
        raise BankError(f"--drop-outliers is {value:g}; a share from 0 to below 0.5")
    return value


def _rate(value: float) -> float:
    if not 0 < value < 1:
        raise BankError(f"--fpr is {value:g}; a share between 0 and 1")
    return value
