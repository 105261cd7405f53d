"""Storage commitment from the node's side: answers peers for what it holds, hears what archives answer to it.

Owns when a report is told and for how long that is tried. Knows nothing of associations: how to reach and to tell a
peer is given in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.commitment import CommitmentRequest, CommitmentResult
from dicom_node.domain.errors import NodeError
from dicom_node.domain.types import Destination, Kind
from dicom_node.queue import items
from dicom_node.queue.policy import backoff
from dicom_node.store import commitment_requests, commitments, overview
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""How often reports that are due are looked for."""

KEPT_OPEN = timedelta(minutes=1)
"""How long a peer may keep the association of its request open before its report is sent on another."""

TRIED_FOR = timedelta(days=1)
"""How long a peer that cannot be reached is tried."""

_LEASE = timedelta(minutes=5)
_BASE_SECONDS, _CAP_SECONDS, _JITTER = 10.0, 900.0, 0.5


class Commitments:
    """What the receiver asks and tells (`receive.commitment.Keeper`).

    Parameters
    ----------
    most
        Requests that may wait for their report.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        clock: Callable[[], datetime],
        most: int = commitment_requests.MOST_OPEN,
    ) -> None:
        self._engine = engine
        self._files = files
        self._clock = clock
        self._most = most

    def resume(self) -> None:
        """Take up the requests whose associations ended with a former process.

        Where several processes receive, the association may be open in another: its peer is told twice then.
        """
        with writing(self._engine) as conn:
            commitment_requests.resume(conn, self._clock())

    def take(self, request: CommitmentRequest) -> CommitmentResult:
        """Record a request for good and return what is committed.

        Raises
        ------
        OutOfResourcesError, DatabaseError
            If it cannot be recorded now.
        """
        with reading(self._engine) as conn:
            result = commitment_requests.judge(conn, self._files, request)
        with writing(self._engine) as conn:
            commitment_requests.add(conn, request, request.at + KEPT_OPEN, self._most)
        return result

    def told(self, request: CommitmentRequest, status: int | None) -> None:
        """Settle a request whose report was taken on its own association; else let it be told on another."""
        with writing(self._engine) as conn:
            if status == 0:
                commitment_requests.settle(conn, request, self._clock())
            else:
                commitment_requests.postpone(conn, request, self._clock())

    def answered(self, result: CommitmentResult, calling_ae_title: str) -> bool:
        """Record an archive's answer and let the delivery that waits for it go on; False if nothing was asked."""
        now = self._clock()
        with writing(self._engine) as conn:
            asked = commitments.answer(conn, result, now)
            if asked is None:
                return commitments.known(conn, result.transaction_uid)
            if (study := overview.study_of_report(conn, asked.sop_instance_uid)) is not None:
                items.hasten(conn, Kind.DELIVER, *study, asked.destination, now)
        log.info(
            "storage commitment answered",
            extra={"destination": asked.destination, "calling_ae_title": calling_ae_title},
        )
        return True


def report_commitments(
    engine: Engine,
    files: FileStore,
    reach: Callable[[str, str], Destination | None],
    tell: Callable[[Destination, CommitmentResult], None],
    clock: Callable[[], datetime],
) -> int:
    """Tell the reports that are due, each on an association of this node's own; return how many were taken.

    Parameters
    ----------
    reach
        Returns where a peer, known by AE title and address, is called; None if that is not known.
    tell
        Tells a result; raises NodeError.
    """
    taken = 0
    away: dict[str, str] = {}
    while (owed := _next(engine, clock)) is not None:
        request, now = owed.request, clock()
        peer = reach(request.calling_ae_title, request.peer_address)
        if peer is None:
            why = (
                "its association has ended, and no port is configured at which it could be called; "
                "set port in its receive.peers"
            )
            _give_up(engine, request, now, why)
            continue
        reason = away.get(peer.name, "")
        if not reason:
            with reading(engine) as conn:
                result = commitment_requests.judge(conn, files, request)
            try:
                tell(peer, result)
            except NodeError as error:
                reason = str(error)
        if not reason:
            with writing(engine) as conn:
                commitment_requests.settle(conn, request, now)
            taken += 1
        elif now - request.at >= TRIED_FOR:
            _give_up(engine, request, now, reason)
        else:
            if peer.name not in away:
                log.warning("storage commitment report not taken; tried again", extra={"reason": reason})
            away[peer.name] = reason
            with writing(engine) as conn:
                wait = backoff(owed.attempts, _BASE_SECONDS, _CAP_SECONDS, _JITTER)
                commitment_requests.postpone(conn, request, clock() + wait)
    return taken


def _next(engine: Engine, clock: Callable[[], datetime]) -> commitment_requests.Owed | None:
    with reading(engine) as conn:
        if not commitment_requests.any_due(conn, clock()):
            return None
    with writing(engine) as conn:
        return commitment_requests.take_due(conn, clock(), clock() + _LEASE)


def _give_up(engine: Engine, request: CommitmentRequest, now: datetime, why: str) -> None:
    with writing(engine) as conn:
        commitment_requests.settle(conn, request, now, why)
    log.warning(
        "storage commitment report given up",
        extra={"calling_ae_title": request.calling_ae_title, "reason": why},
    )
