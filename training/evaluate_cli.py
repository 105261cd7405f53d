"""``python -m training evaluate``: parse, call, print."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from training.scored import Case, cases_of_folders, read_cases
from training.terminal import FAILED, UNUSABLE, Reporter, exit_codes


def evaluate(
    out: Annotated[
        Path, typer.Option(help="Folder for scores.csv, evaluation.json, .md, .html and the plots.")
    ],
    bank: Annotated[Path | None, typer.Option(help="Bank that scores the images.")] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="Instead of bank and images, a CSV: path, label, score; others optional."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="CSV: path, label (0 or normal, 1 or abnormal), patient_id; other columns: subgroups."
        ),
    ] = None,
    normal: Annotated[
        Path | None, typer.Option(help="Instead of a CSV, a folder of normal images, and")
    ] = None,
    abnormal: Annotated[Path | None, typer.Option(help="one of abnormal images.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="scores.csv of another run on the same images, for a paired comparison.")
    ] = None,
    prevalence: Annotated[
        list[float] | None,
        typer.Option(help="State PPV and NPV for this share of abnormal images; repeatable."),
    ] = None,
    draws: Annotated[int, typer.Option("--bootstrap", min=100, help="Draws of the bootstrap.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    rules: Annotated[
        Path | None, typer.Option(help="JSON of [score.eligibility], if the node's differs from the default.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print evaluation.json instead of the table.")
    ] = False,
) -> None:
    """Say what a bank is worth on labelled images. Interrupted, it goes on where it was when started again."""
    with exit_codes(UNUSABLE):
        missing = [name for name in ("sklearn", "matplotlib") if find_spec(name) is None]
        if missing:
            raise BankError(f"{', '.join(missing)} is not installed; install dicom-node[training]")
        if (bank is None) == (scores is None):
            raise BankError("give either --bank and images, or --scores")
        for value in prevalence or ():
            if not 0 < value < 1:
                raise BankError(f"--prevalence is {value:g}; a share between 0 and 1")
        cases = _cases(images, normal, abnormal, needed=bank is not None)
        chosen = Eligibility() if rules is None else Eligibility.model_validate_json(rules.read_bytes())
    from training.evaluate import Question
    from training.evaluate import evaluate as run
    from training.evaluation_text import to_markdown

    question = Question(
        out=out,
        bank=bank,
        cases=cases,
        scores=scores,
        against=against,
        prevalences=tuple(prevalence or ()),
        draws=draws,
        seed=seed,
        rules=chosen,
    )
    with exit_codes(FAILED), Reporter("scoring", "scored") as reporter:
        result = run(question, at=datetime.now(UTC), started=reporter.started, progress=reporter.progress)
    sys.stdout.write(json.dumps(result, indent=1) + "\n" if as_json else to_markdown(result))


def _cases(images: Path | None, normal: Path | None, abnormal: Path | None, *, needed: bool) -> list[Case]:
    if not needed:
        if images or normal or abnormal:
            raise BankError("--scores brings its own images; leave out --images, --normal and --abnormal")
        return []
    if images is not None and normal is None and abnormal is None:
        return read_cases(images)
    if images is None and normal is not None and abnormal is not None:
        return cases_of_folders(normal, abnormal)
    raise BankError("give either --images, or both --normal and --abnormal")
