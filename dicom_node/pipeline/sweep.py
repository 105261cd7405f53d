"""Puts right what a dead process left behind: leases that ran out, files that were never adopted."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.queue import leases
from dicom_node.store import retrievals, studies, tasks
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

STALE = timedelta(hours=1)
"""Age at which a file in ``incoming`` belongs to no transfer any more (a transfer is cut off long before)."""


def rescue_leases(engine: Engine, clock: Callable[[], datetime]) -> int:
    """Give items whose lease has run out back to the queue; return how many."""
    with reading(engine) as conn:
        if not leases.expired(conn, clock()):
            return 0
    with writing(engine) as conn:
        rescued = leases.rescue(conn, clock())
    if rescued:
        log.warning("leases had run out, their work is scheduled again", extra={"items": rescued})
    return rescued


def follow_the_clock(engine: Engine, clock: Callable[[], datetime], tolerance_seconds: float) -> int:
    """Put right what was noted in what is now the future, because the clock went back; return how many rows.

    No study waits until the clock has caught up, then.
    """
    with writing(engine) as conn:
        now = clock()
        put_right = (leases.set_back, studies.set_back, tasks.set_back, retrievals.set_back)
        changed = sum(rows(conn, now, tolerance_seconds) for rows in put_right)
    if changed:
        log.warning("the clock went back, what waits was put right", extra={"rows": changed})
    return changed


def sweep_incoming(files: FileStore, clock: Callable[[], datetime]) -> int:
    """Remove files that a cut-off transfer left; none of them was ever acknowledged."""
    removed = files.sweep_incoming(clock() - STALE)
    if removed:
        log.warning("files of cut-off transfers removed", extra={"files": removed})
    return removed
