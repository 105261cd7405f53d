"""Fetches studies from archives in bulk, at low priority, within limits: the duty behind ``dicom-node backfill``.

The command only asks; this runs in `serve`. So the nightly hours hold without anyone being logged in, a machine that
restarts goes on by itself, the images of a C-MOVE come to a receiver that is there, and several processes share one
rate. Everything it knows is in the table `retrievals`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    DatabaseError,
    DestinationAwayError,
    DestinationRefusedError,
    InvalidIdentifierError,
    OutOfResourcesError,
)
from dicom_node.domain.limits import until_open
from dicom_node.domain.retrieval import Archive, Fetch, Fetched, Fetcher
from dicom_node.store import retrievals
from dicom_node.store.retrievals import Claimed

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
LEASE_SECONDS = 300.0
_IN_ONE_RUN = timedelta(seconds=60)
_ATTEMPTS, _ATTEMPTS_AWAY = 5, 100
_BACKOFF, _BACKOFF_CAP = 30.0, 900.0


class Backfill:
    """One run fetches until nothing is due, a limit is reached, or a minute has passed.

    Parameters
    ----------
    archives
        Those that are configured, by name.
    fetch
        Fetches one study.
    announce
        Called before a study is fetched (True) and when it is all here (False), with its priority.
    stopped
        Says that the node stops: no further study is begun.
    """

    def __init__(
        self,
        engine: Engine,
        archives: Mapping[str, Archive],
        fetch: Fetcher,
        clock: Callable[[], datetime],
        *,
        announce: Callable[[str, int, bool], None] = lambda _study, _priority, _open: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._archives = archives
        self._fetch = fetch
        self._clock = clock
        self._announce = announce
        self._stopped = stopped

    def __call__(self) -> int:
        """Fetch what is due and may be fetched now; return how many studies were dealt with."""
        until = self._clock() + _IN_ONE_RUN
        done = 0
        for archive in self._archives.values():
            while not self._stopped() and self._clock() < until and self.held_up(archive) is None:
                claimed = self._claim(archive)
                if claimed is None:
                    break
                done += 1
                if not self._deal_with(archive, claimed):
                    break
        return done

    def held_up(self, archive: Archive) -> str | None:
        """Return why nothing is fetched from an archive now; None where something may be."""
        now = self._clock()
        wait = until_open(archive.hours, now.astimezone())
        if wait is not None:
            return f"outside its hours, for another {wait.total_seconds() / 60:.0f} minutes"
        with reading(self._engine) as conn:
            waiting = retrievals.waiting_studies(conn)
            if waiting >= archive.studies_at_a_time:
                return f"{waiting} studies wait in the node; studies_at_a_time is {archive.studies_at_a_time}"
            if archive.images_per_minute is None:
                return None
            window = max(60.0, 60.0 / archive.images_per_minute)
            images = retrievals.stored_since(conn, archive.name, now - timedelta(seconds=window))
        if images >= archive.images_per_minute * window / 60.0:
            return f"{images} images came in {window:.0f} s; images_per_minute is {archive.images_per_minute:g}"
        return None

    def _claim(self, archive: Archive) -> Claimed | None:
        with writing(self._engine) as conn:
            return retrievals.claim(conn, archive.name, self._clock(), LEASE_SECONDS, str(uuid4()))

    def _deal_with(self, archive: Archive, claimed: Claimed) -> bool:
        """Fetch one study; return whether the archive may be asked for another one at once."""
        study = claimed.study_instance_uid
        with reading(self._engine) as conn:  # a later report may be on what came of it so far
            answered = retrievals.answered(conn, study, claimed.since)
        if answered:
            self._finish(claimed, retrievals.SKIPPED, reason="answered here already")
            return True
        try:
            self._announce(study, claimed.priority, True)
            fetched = self._fetch(archive, Fetch(study))
            if fetched.complete:
                self._announce(study, claimed.priority, False)
        except (OutOfResourcesError, DatabaseError, DestinationAwayError) as error:
            self._again(claimed, None, str(error), _ATTEMPTS_AWAY)
            return False
        except (DestinationRefusedError, InvalidIdentifierError) as error:
            self._finish(claimed, retrievals.FAILED, reason=str(error))
            return False
        if fetched.complete:
            self._finish(claimed, retrievals.FETCHED, fetched)
        elif fetched.expected == 0:
            self._finish(claimed, retrievals.FAILED, fetched, reason=fetched.reason)
        else:
            self._again(claimed, fetched, fetched.reason, _ATTEMPTS)
        return True

    def _again(self, claimed: Claimed, fetched: Fetched | None, reason: str, attempts: int) -> None:
        if claimed.attempts >= attempts:
            self._finish(claimed, retrievals.FAILED, fetched, reason=reason)
            return
        wait = min(_BACKOFF * 2 ** min(claimed.attempts - 1, 10), _BACKOFF_CAP)
        self._finish(
            claimed, retrievals.DUE, fetched, reason=reason, due_at=self._clock() + timedelta(seconds=wait)
        )

    def _finish(
        self,
        claimed: Claimed,
        state: str,
        fetched: Fetched | None = None,
        *,
        reason: str = "",
        due_at: datetime | None = None,
    ) -> None:
        with writing(self._engine) as conn:
            mine = retrievals.finish(conn, claimed, state, self._clock(), fetched, reason=reason, due_at=due_at)
        level = logging.WARNING if state == retrievals.FAILED or due_at is not None else logging.INFO
        log.log(
            level,
            "backfill",
            extra={
                "archive": claimed.archive,
                "study_instance_uid": claimed.study_instance_uid,
                "state": state if mine else "taken up by another worker",
                "attempts": claimed.attempts,
                "reason": reason,
            },
        )
