"""``python -m training train-head``: parse, call, print."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dicom_node.config import Eligibility
from dicom_node.score.backbone import load_backbone
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.weights import Weights
from training.head_recipe import HeadRecipe
from training.terminal import FAILED, UNUSABLE, exit_codes
from training.train_head import HeadOrder, HeadSummary, default_device
from training.train_head import train_head as train


def train_head(
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV: path, patient_id.")],
    out: Annotated[Path, typer.Option(help="The head's file, e.g. head.safetensors.")],
    backbone: Annotated[str, typer.Option(help="As for build.")] = "lite0",
    weights: Annotated[Path | None, typer.Option(help="Its weights file, as for build.")] = None,
    bn: Annotated[
        Literal["frozen", "adapt"],
        typer.Option(help="Use the backbone as published, or let its BatchNorm statistics drift (slow)."),
    ] = "frozen",
    views_per_image: Annotated[
        int, typer.Option(min=2, max=256, help="Random views embedded once for each image (bn frozen).")
    ] = 8,
    views_seed: Annotated[int, typer.Option(min=0, help="Of those views.")] = 0,
    lr: Annotated[float, typer.Option(help="Adam's learning rate, constant.")] = 1e-5,
    epochs: Annotated[int, typer.Option(min=1)] = 100,
    batch: Annotated[int, typer.Option(min=2, help="Images in a step.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Of first weights, order and split.")] = 0,
    held_out: Annotated[
        float, typer.Option(help="Share, by patient, not trained on; give the bank the same share and seed.")
    ] = 0.2,
    select: Annotated[
        Literal["last", "best-heldout"],
        typer.Option(help="Keep the last epoch, or that of least held-out loss."),
    ] = "last",
    normalise: Annotated[Literal["imagenet", "half", "127"], typer.Option(help="As for build.")] = "half",
    rescale: Annotated[Literal["minmax", "none"], typer.Option(help="As for build.")] = "minmax",
    window: Annotated[Literal["none", "voi"], typer.Option(help="As for build.")] = "none",
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep what was embedded here: other rates and more epochs then take little time."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, help="At most this much work is lost by a kill, and the epoch under way.")
    ] = 30.0,
    rules: Annotated[
        Path | None, typer.Option(help="JSON of [score.eligibility], if the node's differs from the default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
) -> None:
    """Train Deep kNN's head on normals. A training that was killed goes on where it was when started again."""
    with exit_codes(UNUSABLE):
        mean, std = NORMALISATIONS[normalise]
        source = None if weights is None else Weights(weights)
        network = load_backbone(backbone, source)
        recipe = HeadRecipe(
            backbone=network.name,
            weights_sha256=network.weights_sha256,
            preprocessing=Preprocessing(window=window, rescale=rescale, mean=mean, std=std),
            bn=bn,
            views_per_image=views_per_image,
            views_seed=views_seed,
            lr=lr,
            epochs=epochs,
            batch=batch,
            seed=seed,
            held_out=held_out,
            select=select,
        )
        eligible = Eligibility() if rules is None else Eligibility.model_validate_json(rules.read_bytes())
        order = HeadOrder(images, out, recipe, source, cache, eligible)
    with exit_codes(FAILED), _Bars(epochs) as bars:
        summary = train(
            order,
            device=default_device() if device == "auto" else device,
            started=bars.started,
            progress=bars.progress,
            epoch_done=bars.epoch_done,
            checkpoint_seconds=checkpoint_seconds,
        )
    sys.stdout.write(json.dumps(asdict(summary), indent=2) + "\n" if as_json else _text(summary))


class _Bars:
    """Files read and epochs trained on standard error: bars on a terminal, else a line now and then."""

    def __init__(self, epochs: int) -> None:
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=console, disable=self._plain,
        )  # fmt: skip
        self._files = self._bars.add_task("reading", total=None)
        self._epochs = self._bars.add_task("epochs", total=epochs)
        self._count, self._total, self._read = epochs, 0, 0

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def started(self, total: int) -> None:
        self._total = total
        self._bars.update(self._files, total=total)

    def progress(self, files: int) -> None:
        before, self._read = self._read, self._read + files
        self._bars.advance(self._files, files)
        if self._plain and (before // 256 != self._read // 256 or self._read == self._total):
            self._tell(f"read {self._read} of {self._total} files")

    def epoch_done(self, number: int, loss: float, held_out: float) -> None:
        self._bars.update(
            self._epochs, completed=number, description=f"epochs, loss {loss:.4f}, held out {held_out:.4f}"
        )
        if self._plain and (number % 10 == 0 or number == self._count):
            self._tell(f"epoch {number} of {self._count}: loss {loss:.5f}, held out {held_out:.5f}")

    def _tell(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _text(summary: HeadSummary) -> str:
    resumed = f", went on after epoch {summary.resumed_at}" if summary.resumed_at else ""
    lines = [
        f"head written to {summary.head}",
        f"  normals      {summary.images} trained on, {summary.held_out_images} held out",
        f"  left out     {len(summary.skipped)} unusable, {summary.duplicates} duplicates",
        f"  epoch        {summary.epoch}: loss {summary.loss:.5f}, held out {summary.held_out_loss:.5f}",
        f"  curves       {summary.curves}",
        f"  picture      {summary.picture or 'none: matplotlib is missing (extra training)'}",
        f"  time         {summary.seconds:.1f} s on {summary.device}{resumed}",
    ]
    if summary.statistics:
        lines.insert(1, f"  statistics   {summary.statistics}")
    return "\n".join(lines) + "\n"
