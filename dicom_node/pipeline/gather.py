"""Decides that a study is complete: closes its quiet revision and asks for its analysis, in one transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from dicom_node.config import Gather
from dicom_node.db.engine import reading, writing
from dicom_node.domain.types import Kind
from dicom_node.queue import items
from dicom_node.store import studies

log = logging.getLogger(__name__)


def close_quiet_revisions(engine: Engine, config: Gather, clock: Callable[[], datetime]) -> int:
    """Close every revision to which nothing came for a while; return how many.

    An image that arrives while this runs keeps its revision open: closing is conditional on what was seen.
    """
    now = clock()
    with reading(engine) as conn:
        quiet = studies.quiet(conn, now, config.quiet_seconds, config.open_association_seconds)
    closed = 0
    for study_instance_uid, number in quiet:
        with writing(engine) as conn:
            if not studies.close_revision(conn, study_instance_uid, number, clock(), config.quiet_seconds):
                continue
            items.schedule(conn, Kind.ANALYSE, study_instance_uid, number, clock())
        log.info("study complete", extra={"study_instance_uid": study_instance_uid, "revision": number})
        closed += 1
    return closed
