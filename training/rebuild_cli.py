"""``python -m training split`` and ``rebuild``: parse, call, print."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from training.rebuild import Rebuild, Verdict
from training.rebuild import rebuild as rebuild_bank
from training.salad_cli import tell_epoch
from training.splits import describe, write_manifest
from training.splits import split as split_patients
from training.terminal import FAILED, Reporter, exit_codes


def split(
    images: Annotated[Path, typer.Option(help="Folder of images, or a CSV of them.")],
    out: Annotated[Path, typer.Option(help="CSV to write, for --images of build and rebuild.")],
    calibration: Annotated[float, typer.Option(help="Share of the patients that calibrate.")] = 0.2,
    test: Annotated[float, typer.Option(help="Share of the patients kept out of bank and calibration.")] = 0.2,
    seed: Annotated[int, typer.Option(help="The same seed puts a patient on the same side again.")] = 0,
) -> None:
    """Divide images by patient into bank, calibration and test; the CSV holds no patient's identifier."""
    with exit_codes(FAILED):
        divided = split_patients(describe(images, seed), calibration, test)
        counts = write_manifest(out, divided, secrets.token_bytes(32))
    told = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("bank", "calibration", "test"))
    sys.stdout.write(f"{out}: {told}\n")


def rebuild(
    like: Annotated[Path, typer.Option(help="Folder of the bank whose recipe is repeated.")],
    images: Annotated[Path, typer.Option(help="Folder of normals, or a CSV of them.")],
    name: Annotated[str, typer.Option(help="Of the new bank; by default the next of NAME-r1, NAME-r2.")] = "",
    calibration_images: Annotated[
        Path | None,
        typer.Option(help="Normals that calibrate, where the bank has a separate set for it."),
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="CSV of path and label (0 normal, 1 abnormal): compares AUROCs.")
    ] = None,
    test: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of the normals held out.")] = 0.15,
    source: Annotated[str, typer.Option(help="Where the normals came from, for the manifest.")] = "",
    nice: Annotated[int, typer.Option(min=0, max=19, help="Lower the priority by this much.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as one JSON object.")] = False,
) -> None:
    """Repeat a bank's recipe on other normals and compare the two banks. Activates nothing."""
    os.nice(nice)
    asked = Rebuild(like, images, name, calibration_images, labelled, test, source)
    with exit_codes(FAILED), Reporter() as reporter:
        verdict = rebuild_bank(
            asked,
            created_at=datetime.now(UTC),
            started=reporter.started,
            progress=reporter.progress,
            trained=tell_epoch,
        )
    sys.stdout.write(json.dumps(asdict(verdict)) + "\n" if as_json else _text(verdict))


def _text(verdict: Verdict) -> str:
    if verdict.state == "unchanged":
        return f"bank {verdict.active} was built from these very files; nothing was built\n"
    lines = [f"bank {verdict.bank} is {verdict.state} than {verdict.active}"]
    if verdict.state == "undecided":
        lines = [f"bank {verdict.bank} against {verdict.active}: undecided"]
    lines += [f"  because      {reason}" for reason in verdict.reasons]
    for bank, measured in ((verdict.bank, verdict.new), (verdict.active, verdict.old)):
        if measured is not None:
            lines.append(
                f"  {bank}: {measured.above} of {measured.images} held-out normals above the threshold "
                f"({measured.false_positive_rate:.1%} promised), {measured.bank_images} normals in the bank"
            )
    if verdict.labelled is not None:
        seen = verdict.labelled
        lines.append(f"  AUROC        {seen.new_auroc:.3f}, before {seen.old_auroc:.3f}")
    return "\n".join(lines) + "\n"
