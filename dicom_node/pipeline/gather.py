"""Decides that a study is complete: closes its revision and asks for its analysis, in one transaction.

Somebody may have said which images belong to it, or that more will come; else the quiet time decides.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from dicom_node.config import Gather
from dicom_node.db.engine import reading, writing
from dicom_node.domain.types import Kind
from dicom_node.pipeline import arriving
from dicom_node.pipeline.arriving import NOTHING, Seen
from dicom_node.queue import items
from dicom_node.store import expected, studies

log = logging.getLogger(__name__)

Look = Callable[[str, int], Seen]


def close_quiet_revisions(
    engine: Engine,
    config: Gather,
    clock: Callable[[], datetime],
    look: Look = lambda _study, _number: NOTHING,
) -> int:
    """Close every revision that is complete, or to which nothing came for a while; return how many.

    An image that arrives while this runs keeps its revision open: closing is conditional on what was seen. One that
    somebody holds open is closed all the same when nothing came for ``hold_seconds``. An association that brought
    images and is open holds its studies open for a while, whatever is said of them.

    Parameters
    ----------
    look
        Returns what the images of a revision say; see `arriving.Arrivals`.
    """
    now = clock()
    with reading(engine) as conn:
        quiet = studies.quiet(conn, now, config.quiet_seconds, config.open_association_seconds)
        longest = now - timedelta(seconds=max(config.hold_seconds, config.quiet_seconds))
        patient = set(studies.last_came_before(conn, longest)) if quiet else set()
        due = [
            (study, number)
            for study, number in quiet
            if (study, number) in patient or expected.verdict(conn, study, now) != "hold"
        ]
        named = set(expected.perhaps_complete(conn)).difference(due)
        at_rest = studies.quiet(conn, now, 0.0, config.open_association_seconds) if named else []
        early = [one for one in at_rest if one in named and expected.verdict(conn, one[0], now) == "close"]
    quietly = [(study, number, config.quiet_seconds) for study, number in due]
    return sum(
        _close(engine, study, number, quiet_seconds, clock, look)
        for study, number, quiet_seconds in [*((*one, 0.0) for one in early), *quietly]
    )


def _close(
    engine: Engine, study: str, number: int, quiet_seconds: float, clock: Callable[[], datetime], look: Look
) -> bool:
    seen = look(study, number)
    with writing(engine) as conn:
        at = clock()
        expected.arrived(conn, study, seen.accession_hashes, at)
        procedure = expected.procedure(conn, study)
        if not studies.close_revision(conn, study, number, at, quiet_seconds, procedure):
            return False
        priority = arriving.priority(conn, study, seen)
        items.schedule(conn, Kind.ANALYSE, study, number, at, priority=priority)
        expected.spend(conn, study, at)
    log.info("study complete", extra={"study_instance_uid": study, "revision": number})
    return True
