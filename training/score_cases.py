"""Scores labelled images against one bank by the node's own code path, in shards that survive a kill.

Owns reading and scoring of the images of an evaluation. Knows nothing of metrics.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dicom_node import __version__
from dicom_node.config import Eligibility
from dicom_node.domain.errors import CannotDecodeError, CannotUnderstandError
from dicom_node.score import files
from dicom_node.score.attributes import text
from dicom_node.score.durable import write_synced
from dicom_node.score.eligibility import judge, stated_view
from dicom_node.score.pixels import Grey, to_grey
from dicom_node.score.population import stated_age, stated_institution
from dicom_node.score.scoring import AnyScorer
from training import controls
from training.scored import Case, Row

SHARD = 32
"""Images in a shard: they are scored together, and at most this many are lost by a kill."""


@dataclass(frozen=True, slots=True)
class _Read:
    row: Row
    grey: Grey | None


def score_cases(
    cases: Sequence[Case],
    scorer: AnyScorer,
    rules: Eligibility,
    folder: Path,
    progress: Callable[[int], None],
) -> list[Row]:
    """Score every case.

    Parameters
    ----------
    scorer
        Of the bank.
    rules
        The node's ``[score.eligibility]``; like the bank's population they hold for DICOM only.
    folder
        Where finished shards are kept; an interrupted run goes on there.
    progress
        Told how many images each step has done.

    Returns
    -------
    list of Row
        In order. An image that the node would not analyse has no score and says why.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rows: list[Row] = []
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for at in range(0, len(cases), SHARD):
            shard = cases[at : at + SHARD]
            place = folder / f"{_key(shard, scorer, rules)}.json"
            if not place.exists():
                done = _score_shard(shard, scorer, rules, pool)
                staging = place.with_suffix(".writing")
                write_synced(staging, json.dumps([asdict(row) for row in done]).encode())
                staging.replace(place)
            rows += [Row(**values) for values in json.loads(place.read_bytes())]
            progress(len(shard))
    return _numbered(rows)


def _score_shard(
    shard: Sequence[Case], scorer: AnyScorer, rules: Eligibility, pool: ThreadPoolExecutor
) -> list[Row]:
    read = list(pool.map(lambda case: _read(case, scorer, rules), shard))
    scores = iter(scorer.score_images([one.grey for one in read if one.grey is not None]))
    rows = []
    for one in read:
        if one.grey is None:
            rows.append(one.row)
            continue
        score = next(scores)
        rows.append(
            replace(
                one.row,
                score=score.value,
                percentile=score.percentile,
                z_score=score.z_score,
                threshold=score.threshold,
            )
        )
    return rows


def _read(case: Case, scorer: AnyScorer, rules: Eligibility) -> _Read:
    """Read one image as the node does; see `dicom_node.score.scorer.Analyser`."""
    manifest = scorer.bank.manifest
    prep = manifest.preprocessing
    row = Row(str(case.path), case.label, patient=_hidden(case.patient), columns=case.columns)
    try:
        content = files.read_bytes(case.path)
        row = replace(row, image=hashlib.sha256(content).hexdigest()[:32])
        if files.is_picture(content):
            grey = files.picture_to_grey(content, case.path.name, rescale=prep.rescale)
        else:
            ds = files.parse_dicom(content, case.path.name)
            if not row.patient:
                row = replace(row, patient=_hidden(text(ds, "PatientID") or text(ds, "StudyInstanceUID")))
            refusal = judge(ds, rules)
            if refusal is not None:
                return _Read(replace(row, refusal=f"{refusal.code}: {refusal.reason}"), None)
            stated = text(ds, "Modality"), stated_view(ds), stated_age(ds), stated_institution(ds)
            if not manifest.population.admits(*stated):
                return _Read(replace(row, refusal="no_bank: the image is not of the bank's population"), None)
            grey = to_grey(ds, window=prep.window, rescale=prep.rescale)
    except (CannotDecodeError, CannotUnderstandError) as error:
        return _Read(replace(row, refusal=f"decode: {error}"), None)
    measured = dict(zip(controls.NAMES, controls.measure(case.path, grey), strict=True))
    return _Read(replace(row, controls=measured), grey)


def _hidden(patient: str) -> str:
    return hashlib.sha256(patient.encode()).hexdigest() if patient else ""


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Replace hashes of patients by numbers from 1, in order of appearance."""
    known = list(dict.fromkeys(row.patient for row in rows if row.patient))
    numbers = {patient: str(at) for at, patient in enumerate(known, 1)}
    return [replace(row, patient=numbers.get(row.patient, "")) for row in rows]


def _key(shard: Sequence[Case], scorer: AnyScorer, rules: Eligibility) -> str:
    """Hash everything a shard's rows follow from; a changed file has another size or time."""
    parts: list[object] = [__version__, scorer.bank.bank_hash, rules.model_dump(mode="json")]
    for case in shard:
        facts = case.path.stat() if case.path.exists() else None
        parts.append(
            [str(case.path), case.label, case.patient, case.columns]
            + ([facts.st_size, facts.st_mtime_ns] if facts else [])
        )
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]
