"""Lets the files of studies go that are answered, delivered and older than the site keeps them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from dicom_node.config import Store
from dicom_node.db.engine import reading, writing
from dicom_node.domain.audit import Audit, StudyDeleted, unheard
from dicom_node.domain.ids import SELFTEST_AE_TITLE
from dicom_node.store import retention
from dicom_node.store.files import FileStore
from dicom_node.store.retention import Over

log = logging.getLogger(__name__)

_AT_ONCE = 25
"""Files removed in one transaction: it holds up other writers for as long."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was let go, or would be: studies with the reason, reports by SOP Instance UID, how many procedure steps."""

    studies: tuple[tuple[Over, str], ...]
    reports: tuple[str, ...]
    steps: int = 0

    @property
    def size(self) -> int:
        """Bytes of data sets."""
        return sum(study.size for study, _ in self.studies)


def prune(
    engine: Engine,
    files: FileStore,
    config: Store,
    clock: Callable[[], datetime],
    *,
    dry_run: bool = False,
    audit: Audit = unheard,
    by: str = "",
) -> Pruned:
    """Remove the files whose time is over, by ``[store] retention_*``; the rows stay.

    May be killed at any moment and run in several processes at once. Also ends what an earlier run began.

    Parameters
    ----------
    dry_run
        Only say what would go.
    audit
        Told of each study whose images go.
    by
        Who wants it; empty where the node does it by itself.

    Raises
    ------
    DatabaseError, StoreError
        If one of them is away; the next run goes on.
    """
    now = clock()
    with reading(engine) as conn:
        studies = tuple(_studies(conn, config, now))
        old = timedelta(days=config.report_retention_days)
        reports = retention.reports_over(conn, now - old) if old else ()
    if dry_run:
        return Pruned(studies, reports)
    gone = []
    for study, why in studies:
        with writing(engine) as conn:  # looked at again: an image or a retry may have come since
            seen = retention.over(conn, now, SELFTEST_AE_TITLE, study.study_instance_uid)
            if seen and seen[0].revision == study.revision:
                retention.let_images_go(conn, seen[0], why, clock())
                gone.append((study, why))
        if gone and gone[-1][0] is study:
            audit(StudyDeleted(clock(), study.study_instance_uid, by))
    for sop_instance_uid in reports:
        with writing(engine) as conn:
            retention.let_report_go(conn, sop_instance_uid, clock())
    remove_going(engine, files)
    if gone or reports:
        log.info("files removed whose time is over", extra={"studies": len(gone), "reports": len(reports)})
    return Pruned(tuple(gone), reports)


def remove_going(engine: Engine, files: FileStore) -> None:
    """Remove the files of rows that are marked as going, also those that an earlier run did not come to."""
    left = 1
    while left:
        with writing(engine) as conn:
            left = retention.remove_going(conn, files, _AT_ONCE)


def _studies(conn: Connection, config: Store, now: datetime) -> Iterator[tuple[Over, str]]:
    by_age = config.retention_days > 0
    excess = (
        retention.held_bytes(conn) - config.retention_megabytes * 1_000_000 if config.retention_megabytes else 0
    )
    if not by_age and excess <= 0:
        return
    old = {
        study.study_instance_uid
        for study in (
            retention.over(conn, now - timedelta(days=config.retention_days), SELFTEST_AE_TITLE)
            if by_age
            else ()
        )
    }
    for study in retention.over(conn, now, SELFTEST_AE_TITLE):
        if study.study_instance_uid in old:
            why = f"older than {config.retention_days} days"
        elif excess > 0:
            why = f"more than {config.retention_megabytes} MB held"
        else:
            return  # the oldest come first: what follows is younger
        excess -= study.size
        yield study, why
