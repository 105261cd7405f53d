"""Builds a bank by the recipe of the active one from other normals, and judges it against that one.

Activates nothing. Killed at any point it goes on where it was when started again: shards and banks are written
whole or not at all, and a bank that this very input made is not built twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.bank import MANIFEST, check_name, read_manifest
from dicom_node.score.durable import write_synced
from dicom_node.score.manifest import Manifest
from dicom_node.score.scoring import load_scorer
from training.build import build
from training.build_aligned import AlignedOrder, build_aligned
from training.embed import finish, patient_key, work_folder
from training.judge import MINIMUM_HELD_OUT, Judgement, Labelled, Normals, auroc, judge
from training.model_card import write_card
from training.recipe import REBUILD_INPUT, REBUILD_SOURCE, REBUILT_FROM, AnyOrder, order_like
from training.salad_build import SaladOrder, build_salad
from training.score_cases import score_cases
from training.scored import Case, Row, read_cases
from training.splits import Described, describe, describe_cases, write_manifest
from training.train_salad import Epoch

VERDICT = "rebuild.json"
"""Beside the files of a rebuilt bank: what was measured and decided. No hash covers it."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What is asked.

    Attributes
    ----------
    active
        Folder of the bank whose recipe is repeated; the new one stands beside it.
    images
        Folder or CSV of normals. Files whose split is "test" are the held-out ones.
    name
        Of the new bank; "" takes the active one's name with the next number: NAME-r1, NAME-r2.
    test
        Share of the normals held out of the new bank unless the CSV says which: at least 20, half at most.
    labelled
        CSV of path and label, to compare AUROCs.
    source
        Where the normals came from, for the manifest; never a patient's name.
    """

    active: Path
    images: Path
    name: str = ""
    calibration_images: Path | None = None
    labelled: Path | None = None
    test: float = 0.15
    source: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it. `state` is "unchanged" where the active bank was built from these very files."""

    state: Literal["not worse", "worse", "undecided", "unchanged"]
    bank: str
    bank_hash: str
    active: str
    active_hash: str
    reasons: list[str] = field(default_factory=list)
    new: Normals | None = None
    old: Normals | None = None
    labelled: Labelled | None = None


def rebuild(
    asked: Rebuild,
    *,
    created_at: datetime,
    started: Callable[[int], None],
    progress: Callable[[int], None],
    trained: Callable[[Epoch], None] = lambda _: None,
) -> Verdict:
    """Build, judge, and say what came of it.

    Parameters
    ----------
    created_at, started, progress
        As for the builder of the bank's kind.
    trained
        Told each epoch that ended, where the kind is trained.

    Raises
    ------
    BankError
        If the recipe cannot be repeated or the normals do not suffice.
    """
    root, active = asked.active.parent, load_scorer(asked.active).bank
    manifest, old_hash = active.manifest, active.bank_hash
    labelled = [] if asked.labelled is None else read_cases(asked.labelled)
    stem = re.sub(r"-r\d+\Z", "", manifest.name)[:56]
    with work_folder(root, f"{stem}.rebuild") as work:
        seed = int(manifest.recipe.get("seed", 0))
        described = describe(asked.images, seed)
        separate = [] if asked.calibration_images is None else describe(asked.calibration_images, seed)
        digest = _digest(described, separate, asked)
        if manifest.recipe.get(REBUILD_INPUT) == digest:
            finish(work)
            return Verdict("unchanged", manifest.name, old_hash, manifest.name, old_hash)
        name, done = _name(root, asked.name, stem, digest, old_hash)
        held, rest = hold_out(described, set(active.images), asked.test)
        source, calibration = work / "normals.csv", None
        write_manifest(source, [*rest, *held], patient_key(work))
        if separate:  # named by the same key: a patient of the bank's is known among them
            calibration, judging = work / "calibration.csv", {one.entry.patient for one in held}
            apart = [_with(one, "") for one in separate if one.entry.patient not in judging]
            write_manifest(calibration, apart, patient_key(work))
        order = order_like(
            active,
            asked.active,
            images=source,
            name=name,
            calibration_images=calibration,
            origin={
                REBUILT_FROM: old_hash,
                REBUILD_INPUT: digest,
                **({REBUILD_SOURCE: asked.source} if asked.source else {}),
            },
        )
        if done is None:
            _build(order, created_at, started, progress, trained)
        else:  # killed between the bank's last byte and the end of its build
            with work_folder(root, name) as leftover:
                finish(leftover)
            write_card(root / name, done)
        used = {one.file_id for one in described} | set(active.images)
        people = {one.entry.patient for one in [*described, *separate]}
        of_labelled = zip(labelled, describe_cases(labelled, seed), strict=True)
        unseen = [case for case, one in of_labelled if one.entry.patient not in people]
        verdict = _compare(asked, root / name, held, unseen, used, order.rules, work)
        _write(root / name / VERDICT, verdict)
        finish(work)
    return verdict


def _build(
    order: AnyOrder,
    created_at: datetime,
    started: Callable[[int], None],
    progress: Callable[[int], None],
    trained: Callable[[Epoch], None],
) -> None:
    if isinstance(order, SaladOrder):
        build_salad(order, created_at=created_at, started=started, progress=progress, trained=trained)
    elif isinstance(order, AlignedOrder):
        build_aligned(order, created_at=created_at, started=started, progress=progress)
    else:
        build(order, created_at=created_at, started=started, progress=progress)


def hold_out(
    described: Sequence[Described], in_active: set[str], share: float
) -> tuple[list[Described], list[Described]]:
    """Divide the files into those held out of the new bank and the rest, by patient; none of the active bank.

    Patients are taken by their place, so that those held out once are held out again while others come and go.

    Returns
    -------
    held, rest
        Each with its split set; `held` is "test".
    """
    stands = {one.entry.patient for one in described if one.file_id in in_active}
    asked = [one for one in described if one.entry.split == "test"]
    if asked:
        chosen = {one.entry.patient for one in asked} - stands
    else:
        chosen = set()
        wanted = min(max(MINIMUM_HELD_OUT, round(share * len(described))), len(described) // 2)
        count = 0
        for one in sorted(described, key=lambda one: one.place):
            if count >= wanted and one.entry.patient not in chosen:
                break
            if one.entry.patient not in stands:
                chosen.add(one.entry.patient)
                count += 1
    held = [_with(one, "test") for one in described if one.entry.patient in chosen]
    rest = [one for one in described if one.entry.patient not in chosen and one.entry.split != "test"]
    if any(one.entry.split == "calibration" for one in rest):
        return held, [_with(one, one.entry.split or "bank") for one in rest]
    return held, rest


def _with(one: Described, split: str) -> Described:
    return replace(one, entry=replace(one.entry, split=split))


def _digest(described: Sequence[Described], separate: Sequence[Described], asked: Rebuild) -> str:
    """Return the hash of what a rebuild follows from; without a calibration set it is that of earlier versions."""
    sides = [
        sorted((one.file_id, one.entry.patient, one.entry.split) for one in side)
        for side in (described, separate)
        if side
    ]
    return hashlib.sha256(json.dumps([asked.test, *sides]).encode()).hexdigest()


def _name(root: Path, wanted: str, stem: str, digest: str, old_hash: str) -> tuple[str, Manifest | None]:
    """Return the name of the new bank, and its manifest where an earlier attempt has built it."""
    number = 1
    while True:
        name = check_name(wanted or f"{stem}-r{number}")
        if not (root / name / MANIFEST).exists():
            return name, None
        there = read_manifest(root / name)
        if (there.recipe.get(REBUILD_INPUT), there.recipe.get(REBUILT_FROM)) == (digest, old_hash):
            return name, there
        if wanted:
            raise BankError(f"bank {wanted} exists; a bank is never changed, choose another name")
        number += 1


def _scored(pair: tuple[Row, Row]) -> bool:
    return pair[0].score is not None and pair[1].score is not None


def _compare(
    asked: Rebuild,
    folder: Path,
    held: Sequence[Described],
    labelled: Sequence[Case],
    used: set[str],
    rules: Eligibility,
    work: Path,
) -> Verdict:
    scorers = [load_scorer(folder), load_scorer(asked.active)]
    cases = [*(Case(one.entry.path, 0, one.entry.patient) for one in held), *labelled]
    new_rows, old_rows = (score_cases(cases, scorer, rules, work, lambda _: None) for scorer in scorers)
    pairs = list(zip(new_rows, old_rows, strict=True))
    normals = [pair for pair in pairs[: len(held)] if _scored(pair)]
    new, old = (_normals(scorer.bank.manifest, [p[at] for p in normals]) for at, scorer in enumerate(scorers))
    fresh = [pair for pair in pairs[len(held) :] if _scored(pair) and pair[0].image not in used]
    measured = _labelled(fresh) if asked.labelled is not None else None
    judged: Judgement = judge(new, old, measured)
    facts = [scorer.bank.manifest for scorer in scorers]
    return Verdict(
        judged.state,
        facts[0].name,
        facts[0].bank_hash,
        facts[1].name,
        facts[1].bank_hash,
        judged.reasons,
        new,
        old,
        measured,
    )


def _normals(manifest: Manifest, rows: Sequence[Row]) -> Normals:
    return Normals(
        images=len(rows),
        above=sum(row.score is not None and row.score > manifest.threshold for row in rows),
        bank_images=manifest.normal_images,
        calibration_images=manifest.calibration_images,
        false_positive_rate=manifest.false_positive_rate,
    )


def _labelled(pairs: Sequence[tuple[Row, Row]]) -> Labelled:
    sides = [[pair for pair in pairs if pair[0].label == label] for label in (0, 1)]
    if not all(sides):
        raise BankError(
            f"{len(sides[0])} normal and {len(sides[1])} abnormal labelled images can be scored, are not in "
            "the active bank, and are of no patient of the normals; some of each are needed"
        )
    new, old = (auroc(*([p[at].score or 0.0 for p in side] for side in sides)) for at in (0, 1))
    return Labelled(len(sides[0]), len(sides[1]), new, old)


def _write(path: Path, verdict: Verdict) -> None:
    staging = path.with_suffix(".writing")
    write_synced(staging, (json.dumps(asdict(verdict), indent=1) + "\n").encode())
    staging.replace(path)
