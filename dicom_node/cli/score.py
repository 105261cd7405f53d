"""``score``: files to scores, by the same path that the node takes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_node.cli.options import FAILED, AsJson, ConfigPath, exit_codes, read_config
from dicom_node.config import Config
from dicom_node.domain import private
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.types import ImageResult, Score


def score(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files.")],
    config: ConfigPath = None,
    bank: Annotated[str | None, typer.Option(help="Name of a bank; default the active one.")] = None,
    as_json: AsJson = False,
    heatmap: Annotated[
        Path | None,
        typer.Option(help="Draw where the image lies far from normal, as a PNG; for one file."),
    ] = None,
    neighbours: Annotated[
        bool, typer.Option("--neighbours", help="Name the nearest normals; --json always does.")
    ] = False,
) -> None:
    """Score image files against a bank; higher is always further from normal.

    JSON: one object a line, in the order given: {"file", "score", "percentile", "z_score", "threshold",
    "above", "bank", "neighbours", ...} or {"file", "refused", "reason"}. A score measured beside it, which decides
    nothing, is in the list "also". Exit code 1 if a file was refused.
    """
    from dicom_node import node

    refused = False
    with exit_codes():
        settings = read_config(config)
        results: Iterable[ImageResult]
        if heatmap is None:
            results = node.score_files(settings, files, bank)
        else:
            results = [_explained(settings, files, bank, heatmap)]
        for path, image in zip(files, results, strict=True):
            refused |= image.refusal is not None
            line: dict[str, Any] = {"file": str(path)}
            if image.score is not None and image.provenance is not None:
                values = asdict(image.score)
                line["score"] = values.pop("value")
                line.update(values, bank=image.provenance.bank_hash)
                text = _text(image.score)
                if neighbours:
                    text += f"; nearest normals: {', '.join(image.score.neighbours)}"
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


def _explained(settings: Config, files: list[Path], bank: str | None, heatmap: Path) -> ImageResult:
    from dicom_node import node

    if len(files) != 1:
        raise ConfigError([f"--heatmap draws one file; {len(files)} were given"])
    image, picture = node.explain_file(settings, files[0], bank)
    try:
        if picture:
            with open(heatmap, "wb", opener=private.opener) as file:
                file.write(picture)
            private.close_to_others(heatmap)  # it may have been there
    except OSError as error:
        raise ConfigError([f"--heatmap {heatmap} cannot be written: {error.strerror}"]) from error
    return image


def _text(score: Score) -> str:
    place = "ABOVE" if score.above else "below"
    return f"{score.value:.6g}  percentile {score.percentile:.1f}  {place} threshold {score.threshold:.6g}"
