"""Asks an archive which images it has of an arriving study: the study is complete as soon as all of them are here.

What the archive answers holds a study open for a time and no longer, and only if it names images that are not here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine

from dicom_node.config import Gather
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.store import expected, studies

log = logging.getLogger(__name__)

_AT_ONCE = 50
"""Studies that are asked for in one round, the longest arriving first."""


class OnOffer(Protocol):
    """Returns which images an archive has of a study, None where it does not say."""

    def __call__(self, study_instance_uid: str) -> frozenset[str] | None:
        """Raise DestinationAwayError or DestinationRefusedError."""


class Counting:
    """Periodic duty; one for a process.

    Parameters
    ----------
    on_offer
        Asks the archive.
    """

    def __init__(
        self, engine: Engine, config: Gather, on_offer: OnOffer, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._config = config
        self._on_offer = on_offer
        self._clock = clock
        self._asked: dict[str, datetime] = {}

    def __call__(self) -> int:
        """Ask for the studies that are arriving and were not asked for lately; return how many were answered.

        An archive that is away is asked for nothing more in this round: the quiet time decides meanwhile.
        """
        now = self._clock()
        with reading(self._engine) as conn:
            arriving = [study for study, _ in studies.last_came_before(conn, now)]
        again = now - timedelta(seconds=self._config.count_seconds)
        self._asked = {study: at for study, at in self._asked.items() if study in set(arriving) and at <= now}
        answered = 0
        for study in [one for one in arriving if self._asked.get(one, again) <= again][:_AT_ONCE]:
            self._asked[study] = now
            try:
                images = self._on_offer(study)
            except (DestinationAwayError, DestinationRefusedError) as error:
                log.warning("the archive was not asked what it has", extra={"reason": str(error)})
                break
            if images:
                self._note(study, images, now)
                answered += 1
        return answered

    def _note(self, study: str, images: frozenset[str], now: datetime) -> None:
        with writing(self._engine) as conn:
            expected.put(
                conn,
                source="count",
                key=study,
                study_instance_uid=study,
                at=now,
                state="complete",
                refs=images,
                until=now + timedelta(seconds=self._config.hold_seconds),
            )
