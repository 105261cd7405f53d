"""``score``: files to scores, by the same path that the node takes."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config
from dicom_node.domain.types import Score


def score(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files.")],
    config: ConfigPath = None,
    bank: Annotated[str | None, typer.Option(help="Name of a bank; default the active one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Score image files against a bank; higher is always further from normal.

    JSON: one object a line, in the order given: {"file", "score", "percentile", "z_score", "threshold",
    "above", "bank", "neighbours"} or {"file", "refused", "reason"}. A score measured beside it, which decides
    nothing, is in the list "also". Exit code 1 if a file was refused.
    """
    from dicom_node import node

    refused = False
    with exit_codes():
        settings = read_config(config)
        for path, image in zip(files, node.score_files(settings, files, bank), strict=True):
            refused |= image.refusal is not None
            line: dict[str, Any] = {"file": str(path)}
            if image.score is not None and image.provenance is not None:
                values = asdict(image.score)
                line["score"] = values.pop("value")
                line.update(values, bank=image.provenance.bank_hash)
                text = _text(image.score)
                for beside in image.also:
                    values = asdict(beside.score)
                    listed = {"score": values.pop("value"), **values, "bank": beside.provenance.bank_hash}
                    line.setdefault("also", []).append(listed)
                    text += f"; beside it {beside.provenance.bank_name}: {_text(beside.score)}"
            else:
                assert image.refusal is not None  # noqa: S101 - ImageResult: exactly one of the two is set
                line.update(refused=image.refusal.code, reason=image.refusal.reason)
                text = f"not scored ({image.refusal.code}): {image.refusal.reason}"
            typer.echo(json.dumps(line) if as_json else f"{path}  {text}")
    if refused:
        sys.exit(FAILED)


def _text(score: Score) -> str:
    place = "ABOVE" if score.above else "below"
    return f"{score.value:.6g}  percentile {score.percentile:.1f}  {place} threshold {score.threshold:.6g}"
