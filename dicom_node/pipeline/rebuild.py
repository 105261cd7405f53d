"""Rebuilds the active bank from other normals: hands them to the builder, activates what it judged not worse.

The builder is a process of its own, so that serving goes on; this file starts it, reads its verdict, and knows
nothing of how a bank is built. Killed before the last step, it leaves the old bank active.
"""

from __future__ import annotations

import csv
import hashlib
import hmac
import json
import logging
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from dicom_node.config import Config
from dicom_node.db import events
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import BankError, CannotUnderstandError
from dicom_node.pipeline.headers import READ_ERRORS, read_header
from dicom_node.score.bank_store import BankStore
from dicom_node.store import instances, marks, node_facts, studies
from dicom_node.store.files import FileStore

Clock = Callable[[], datetime]
Build = Callable[[Sequence[str]], str]
"""Runs the builder with these arguments and returns what it printed."""

log = logging.getLogger(__name__)

MARKED_NORMAL = "marked-normal"
NOT_WORSE, UNCHANGED = "not worse", "unchanged"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be rebuilt.

    Attributes
    ----------
    bank
        The active bank whose recipe is repeated; "" where only one is active.
    images
        Folder or CSV of normals; None takes the studies that people marked normal.
    name, calibration_images, labelled
        As for ``python -m training rebuild``.
    force
        Activate the new bank although it was judged worse, or nothing could be decided.
    source
        Where `images` came from, for the manifest.
    """

    bank: str = ""
    images: Path | None = None
    name: str = ""
    calibration_images: Path | None = None
    labelled: Path | None = None
    force: bool = False
    source: str = ""


def rebuild(
    root: Path,
    engine: Engine,
    files: FileStore,
    wish: Wish,
    clock: Clock,
    build: Callable[[Sequence[str]], str],
) -> dict[str, Any]:
    """Rebuild, and activate the new bank if it is not worse.

    Parameters
    ----------
    build
        Runs the builder; see `Builder`.

    Returns
    -------
    dict
        The verdict of ``python -m training rebuild``, and "activated".

    Raises
    ------
    BankError
        If nothing could be built; the active bank stays. It is an event.
    """
    try:
        verdict = _judged(root, engine, files, wish, build)
        activate = verdict["state"] == NOT_WORSE or (wish.force and verdict["state"] != UNCHANGED)
        if activate:
            BankStore(root).replace(verdict["active"], verdict["active_hash"], verdict["bank"], clock())
    except BankError as error:
        with writing(engine) as conn:
            events.record(conn, clock(), "bank.failed", reason=str(error)[:1000])
        raise
    with writing(engine) as conn:
        told = {key: verdict[key] for key in ("bank", "bank_hash", "state", "reasons")}
        events.record(
            conn,
            clock(),
            "bank.rebuilt",
            **told,
            before=verdict["active"],
            activated=activate,
            force=wish.force,
        )
    return {**verdict, "activated": activate}


def rebuild_as_scheduled(
    engine: Engine, files: FileStore, config: Config, clock: Clock, build: Build
) -> list[dict[str, Any]]:
    """Rebuild every active bank as ``[bank.schedule]`` says, if no other process has begun to do so this minute.

    A bank that cannot be rebuilt is an event and a warning, and does not hold up the next one. SALAD banks come last:
    their training takes long; one that a stop interrupts goes on where it was the next time.
    """
    root, schedule = config.score.banks, config.bank.schedule
    moment, me = clock().strftime("%Y-%m-%dT%H:%M"), str(uuid4())
    with writing(engine) as conn:
        if node_facts.node_value(conn, f"rebuild {moment}", me) != me:
            return []
    images = None if schedule.rebuild == MARKED_NORMAL else Path(schedule.rebuild)
    verdicts = []
    for name in _longest_last(root):
        wish = Wish(name, images, labelled=schedule.labelled)
        try:
            verdict = rebuild(root, engine, files, wish, clock, build)
        except BankError as error:
            log.warning("the bank was not rebuilt", extra={"bank": name, "reason": str(error)})
            continue
        told = {key: verdict[key] for key in ("bank", "state", "reasons", "activated")}
        log.info("bank rebuilt", extra={**told, "before": name})
        verdicts.append(verdict)
    return verdicts


def _longest_last(root: Path) -> list[str]:
    """Return the names of the active banks in their order, those that are trained for long at the end."""
    store = BankStore(root)
    return sorted(store.active(), key=lambda name: store.manifest(name).kind == "salad")


def export_marked(engine: Engine, files: FileStore, path: Path) -> int:
    """Write a CSV of the images of every study marked normal; return how many studies those are.

    Patients are named by a keyed hash that only this node can make again, and no study is named.
    """
    key = patient_key(engine)
    with reading(engine) as conn:
        marked = marks.studies_marked(conn, "normal")
        latest = {study: studies.latest_revision(conn, study) or 0 for study in marked}
        held = {study: instances.of_revision(conn, files, study, latest[study]) for study in marked}
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["path", "patient_id"])
        for study, found in held.items():
            for instance in (i for i in found if not i.lost):
                table.writerow([str(instance.path.absolute()), hashed_patient(key, instance.path, study)])
    return len(marked)


def patient_key(engine: Engine) -> bytes:
    """Return the key of this node under which patients are hashed."""
    with writing(engine) as conn:
        return node_facts.node_value(conn, "patient_key", secrets.token_hex(32)).encode()


def hashed_patient(key: bytes, path: Path, study_instance_uid: str) -> str:
    """Return the keyed hash of an image's patient; of its study, where it names none."""
    patient = _patient(path) or study_instance_uid
    return hmac.new(key, patient.encode(), hashlib.sha256).hexdigest()


def _patient(path: Path) -> str:
    try:
        return str(read_header(path).get("PatientID") or "").strip().upper()
    except (CannotUnderstandError, *READ_ERRORS):
        return ""


def _judged(root: Path, engine: Engine, files: FileStore, wish: Wish, build: Build) -> dict[str, Any]:
    active = BankStore(root).active_hashes()
    name = wish.bank or (next(iter(active)) if len(active) == 1 else "")
    if name not in active:
        raise BankError(
            f"the bank to rebuild is {name or 'not named'}; "
            f"name an active one: {', '.join(active) or 'there is none'}"
        )
    arguments = ["rebuild", "--like", str(root / name), "--json", "--nice", "10"]
    arguments += ["--name", wish.name] if wish.name else []
    arguments += ["--source", wish.source] if wish.source else []
    for option, path in (("--calibration-images", wish.calibration_images), ("--labelled", wish.labelled)):
        arguments += [option, str(path)] if path is not None else []
    if wish.images is not None:
        told = build([*arguments, "--images", str(wish.images)])
    else:
        with tempfile.TemporaryDirectory(prefix="dicom-node-") as folder:
            source = Path(folder) / "marked-normal.csv"
            if not export_marked(engine, files, source):
                raise BankError("no study is marked normal; see `dicom-node worklist mark`")
            told = build([*arguments, "--images", str(source)])
    try:
        verdict: dict[str, Any] = json.loads(told)
        if verdict["active_hash"] != active[name]:
            raise BankError(f"bank {name} is not the one that was activated; verify it")
    except (ValueError, KeyError, TypeError) as error:
        raise BankError("the builder printed no verdict") from error
    return verdict
