"""What a bank, or a table of scores, is worth on labelled images: one evaluation as plain data.

Owns which figures an evaluation holds, and the order of scoring, judging and writing; draws nothing itself.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node import __version__
from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.durable import write_synced
from dicom_node.score.scoring import load_scorer
from training import bootstrap, controls, metrics
from training.evaluation_text import to_html, to_markdown
from training.score_cases import score_cases
from training.scored import (
    Case,
    Row,
    matched,
    read_scores,
    subgroup_columns,
    without_other_columns,
    write_scores,
)

SCORES, RESULT, TABLE, PAGE = "scores.csv", "evaluation.json", "evaluation.md", "evaluation.html"


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be evaluated.

    Attributes
    ----------
    out
        Folder for the results; made where it is missing.
    bank, cases
        Images are scored against this bank; or
    scores
        a table that has scores already.
    against
        Another table of the same images, for a paired comparison.
    prevalences
        Shares of abnormal images for which predictive values are stated.
    draws, seed
        Of the bootstrap.
    rules
        The node's ``[score.eligibility]``.
    """

    out: Path
    bank: Path | None = None
    cases: Sequence[Case] = ()
    scores: Path | None = None
    against: Path | None = None
    prevalences: tuple[float, ...] = ()
    draws: int = bootstrap.DRAWS
    seed: int = 0
    rules: Eligibility = field(default_factory=Eligibility)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the bank beside the scores; None where only a table is given."""

    bank: dict[str, Any] | None = None
    calibration_images: int | None = None
    images: frozenset[str] = frozenset()


def evaluate(
    question: Question, *, at: datetime, started: Callable[[int], None], progress: Callable[[int], None]
) -> dict[str, Any]:
    """Score, judge, and write ``scores.csv``, ``evaluation.json``, ``.md``, ``.html`` and the plots.

    Parameters
    ----------
    at
        For the record; timezone-aware.
    started, progress
        Told how many images there are, and how many each step has done.

    Returns
    -------
    dict
        The content of ``evaluation.json``.

    Raises
    ------
    BankError
        If bank, images or tables cannot be used, or a class has no scored image.
    """
    from training import plots  # needs the extra "training"; said before hours of scoring, not after

    question.out.mkdir(parents=True, exist_ok=True)
    if question.scores is not None:
        rows, facts = read_scores(question.scores), Facts()
    else:
        rows, facts = _score(question, started, progress)
        write_scores(question.out / SCORES, without_other_columns(rows))
    others = None if question.against is None else read_scores(question.against)
    result = judge_rows(rows, others, facts, question)
    result["evaluated_at"] = at.isoformat(timespec="seconds")
    result["plots"] = plots.draw_all(result, rows, others, question.out)
    data = json.dumps(result, indent=1, allow_nan=False) + "\n"
    for name, content in (
        (RESULT, data),
        (TABLE, to_markdown(result)),
        (PAGE, to_html(result)),
    ):
        write_synced(question.out / name, content.encode())
    shutil.rmtree(question.out / ".work", ignore_errors=True)
    written: dict[str, Any] = json.loads(data)
    return written


def judge_rows(
    rows: Sequence[Row], others: Sequence[Row] | None, facts: Facts, question: Question
) -> dict[str, Any]:
    """Return every figure of an evaluation as plain data (see the module's tests for its keys)."""
    scored = [row for row in rows if row.score is not None]
    labels = np.array([row.label for row in scored], dtype=np.int64)
    scores = np.array([row.score for row in scored], dtype=np.float64)
    if set(labels.tolist()) != {0, 1}:
        raise BankError(
            f"{int((labels == 0).sum())} normal and {int((labels == 1).sum())} abnormal images have a score; "
            "an evaluation needs some of both"
        )
    patients = [row.patient or f"image {at}" for at, row in enumerate(scored)]
    draws = bootstrap.draw(labels, scores, patients, question.draws, question.seed)
    auroc, precision = metrics.ranking(labels, scores, draws)
    threshold, warnings = _threshold(scored)
    point = None if threshold is None else metrics.at_threshold(labels, scores, threshold)
    columns, not_banded = subgroup_columns(scored)
    inside = sum(row.image in facts.images for row in rows)
    if inside:
        warnings.append(
            f"{inside} of the images stand in the bank itself; every figure is too good because of it"
        )
    options: dict[str, Any] = {"patients": patients, "draws": question.draws, "seed": question.seed}
    return {
        "dicom_node": __version__,
        "bank": facts.bank,
        "images": {
            "normal": int((labels == 0).sum()),
            "abnormal": int((labels == 1).sum()),
            "patients": len(set(patients)),
            "in_bank": inside,
            "not_analysed": _refused(rows),
        },
        "bootstrap": {"draws": question.draws, "seed": question.seed, "unit": "patient within class"},
        "auroc": asdict(auroc),
        "average_precision": asdict(precision),
        "threshold": None if point is None else asdict(point),
        "specificity_at_sensitivity": {
            f"{wanted:g}": metrics.specificity_at(labels, scores, wanted) for wanted in metrics.SENSITIVITIES
        },
        "predictive_values": [
            asdict(metrics.predictive_values(point.sensitivity.value, point.specificity.value, prevalence))
            for prevalence in question.prevalences
            if point is not None and point.sensitivity is not None and point.specificity is not None
        ],
        "percentiles_of_normals": _percentiles(scored, facts),
        "subgroups": [asdict(s) for s in metrics.subgroups(labels, scores, threshold, columns, **options)],
        "controls": _controls(scored, labels, scores, options),
        "against": None if others is None else _against(scored, others, labels, scores, options),
        "warnings": warnings + not_banded,
    }


def _score(
    question: Question, started: Callable[[int], None], progress: Callable[[int], None]
) -> tuple[list[Row], Facts]:
    if question.bank is None or not question.cases:
        raise BankError("an evaluation needs a bank and images, or a table of scores")
    scorer = load_scorer(question.bank.resolve())
    manifest = scorer.bank.manifest
    started(len(question.cases))
    rows = score_cases(question.cases, scorer, question.rules, question.out / ".work", progress)
    facts = {**manifest.model_dump(mode="json"), "bank_hash": scorer.bank.bank_hash}
    return rows, Facts(facts, manifest.calibration_images, frozenset(scorer.bank.images))


def _threshold(rows: Sequence[Row]) -> tuple[float | None, list[str]]:
    found = {row.threshold for row in rows}
    if len(found) == 1:
        return found.pop(), []
    return None, [f"the table has {len(found)} thresholds; nothing is said of an operating point"]


def _refused(rows: Sequence[Row]) -> dict[str, Any]:
    refused = [row for row in rows if row.score is None]
    return {
        "normal": sum(row.label == 0 for row in refused),
        "abnormal": sum(row.label == 1 for row in refused),
        "reasons": dict(Counter(row.refusal.split(":")[0] or "not stated" for row in refused)),
    }


def _percentiles(rows: Sequence[Row], facts: Facts) -> dict[str, Any] | None:
    found = [row.percentile for row in rows if row.label == 0]
    if any(value is None for value in found):
        return None
    return asdict(metrics.uniformity(np.array(found, dtype=np.float64), facts.calibration_images))


def _controls(
    rows: Sequence[Row], labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], options: dict[str, Any]
) -> list[dict[str, Any]]:
    out = []
    for name in dict.fromkeys(name for row in rows for name in row.controls):
        if any(name not in row.controls for row in rows):
            continue
        values, sign = controls.oriented(labels, np.array([row.controls[name] for row in rows]))
        draws = bootstrap.draw(labels, values, options["patients"], options["draws"], options["seed"])
        ahead, _ = metrics.compare(labels, scores, values, **options)
        auroc, _ = metrics.ranking(labels, values, draws)
        out.append({"name": name, "sign": sign, "auroc": asdict(auroc), "difference": asdict(ahead)})
    return out


def _against(
    rows: Sequence[Row],
    others: Sequence[Row],
    labels: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float64],
    options: dict[str, Any],
) -> dict[str, Any]:
    theirs = matched(rows, others)
    auroc, precision = metrics.compare(labels, scores, theirs, **options)
    return {
        "auroc": metrics.auroc(labels, theirs),
        "average_precision": metrics.average_precision(labels, theirs),
        "difference_auroc": asdict(auroc),
        "difference_average_precision": asdict(precision),
    }
