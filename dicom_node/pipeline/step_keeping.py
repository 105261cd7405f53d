"""Lets procedure steps go that ended long ago and nobody locks (PS3.4 section CC.2.3), and what peers said of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import StoreError
from dicom_node.domain.procedure_steps import Step
from dicom_node.pipeline.step_watching import Watching
from dicom_node.pipeline.sweep import STALE
from dicom_node.store import procedure_steps, step_files, step_needs, step_subscriptions
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

_AT_ONCE = 25
"""Steps removed in one transaction: it holds up other writers for as long."""


def prune_steps(
    engine: Engine,
    files: FileStore,
    watching: Watching,
    clock: Callable[[], datetime],
    keep: timedelta,
    *,
    dry_run: bool = False,
) -> int:
    """Remove steps that ended longer ago than they are kept, rows and files; return how many go, or would.

    One that an AE locked stays, a year after it ended at most. May be killed at any moment, and run in several
    processes at once.

    Raises
    ------
    DatabaseError, StoreError
        If one of them is away; the next run goes on.
    """
    now, gone = clock(), 0
    after = (datetime(1, 1, 1, tzinfo=UTC), "")
    while True:
        with reading(engine) as conn:
            ended = procedure_steps.over(conn, now - keep, after, _AT_ONCE)
        if not ended:
            break
        last = ended[-1]
        after = (last.ended_at or now, last.sop_instance_uid)
        gone += _remove(engine, files, watching, ended, now, dry_run=dry_run)
    if not dry_run:
        with writing(engine) as conn:
            step_subscriptions.forget_idle(conn, procedure_steps.oldest(conn))
        _sweep(engine, files, now)
        if gone:
            log.info("procedure steps removed whose time is over", extra={"steps": gone})
    return gone


def _remove(
    engine: Engine, files: FileStore, watching: Watching, ended: Sequence[Step], now: datetime, *, dry_run: bool
) -> int:
    with reading(engine) if dry_run else writing(engine) as conn:
        free = [step for step in ended if not _locked(conn, watching, step, now)]
        if dry_run:
            return len(free)
        return sum(procedure_steps.remove(conn, files, step.sop_instance_uid) for step in free)


def _locked(conn: Connection, watching: Watching, step: Step, now: datetime) -> bool:
    if step.ended_at is not None and now - step.ended_at >= ups.LOCKED_FOR:
        return False
    for one in step_subscriptions.locking(conn, step.sop_instance_uid, step.created_at):
        try:
            if not one.filter_digest or watching.matches(step, one.filter_digest, step.state):
                return True
        except StoreError:  # it cannot be told whether it is locked
            return True
    return False


def _sweep(engine: Engine, files: FileStore, now: datetime) -> None:
    """Remove what peers said and no row needs: what a dead process left behind."""
    old = step_files.placed(files, now - STALE)
    if not old:
        return
    with reading(engine) as conn:
        needed = step_needs.digests(conn)
    for digest in old - needed:
        step_files.remove(files, digest)
