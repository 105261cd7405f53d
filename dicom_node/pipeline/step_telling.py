"""Tells subscribers what they are owed, in order, and gives up what they do not take within a day. Knows no network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from itertools import groupby

from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import NodeError
from dicom_node.domain.procedure_steps import StepEvent
from dicom_node.domain.types import Destination
from dicom_node.pipeline.step_watching import Watching
from dicom_node.queue.policy import backoff
from dicom_node.store import step_events

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
TRIED_FOR = timedelta(days=1)
CLAIMED_FOR = timedelta(minutes=1)
"""After this, events that a dead process was telling are told by another."""
_BASE_SECONDS, _CAP_SECONDS, _JITTER = 10.0, 900.0, 0.5


def tell_events(
    engine: Engine,
    reach: Callable[[str, str], Destination | None],
    tell: Callable[[Destination, Sequence[tuple[str, int, Dataset]]], int],
    watching: Watching,
    clock: Callable[[], datetime],
    kinds: Collection[int] = (),
) -> int:
    """Send the events that are due, those of some kinds only where they are named; return how many were taken.

    Several processes may run this at once: each event is told by one. A process that ends between an answer and its
    commit has the event sent again: a subscriber hears of a state twice rather than never.
    """
    with reading(engine) as conn:
        if not step_events.any_due(conn, clock()):
            return 0
    with writing(engine) as conn:
        owed = step_events.claim(conn, clock(), clock() + CLAIMED_FOR, kinds=kinds)
    taken = 0
    for (ae_title, address), due in groupby(
        sorted(owed, key=lambda one: (one[0].ae_title, one[1], one[0].id)),
        key=lambda one: (one[0].ae_title, one[1]),
    ):
        taken += _tell(engine, reach(ae_title, address), [one for one, _ in due], tell, watching, clock)
    return taken


def _tell(
    engine: Engine,
    peer: Destination | None,
    events: Sequence[StepEvent],
    tell: Callable[[Destination, Sequence[tuple[str, int, Dataset]]], int],
    watching: Watching,
    clock: Callable[[], datetime],
) -> int:
    """Tell one subscriber what it is owed; return how many it took."""
    said = [(one, watching.information(one)) for one in events]
    told = [(one, (one.sop_instance_uid, one.kind, ds)) for one, ds in said if ds is not None]
    heard, reason = 0, ""
    if peer is None:
        reason = "no port is configured at which it could be called"
    elif told:
        try:
            heard = tell(peer, [what for _, what in told])
        except NodeError as error:
            reason = str(error)
    if reason:
        log.warning("procedure step events not taken", extra={"ae_title": events[0].ae_title, "reason": reason})
    left = [] if peer is None else [one for one, _ in told[heard:]]
    now = clock()
    with writing(engine) as conn:
        for one in events:
            if one in left and now - one.at < TRIED_FOR:
                wait = backoff(one.attempts + 1, _BASE_SECONDS, _CAP_SECONDS, _JITTER)
                step_events.postpone(conn, one.id, now + wait)
            else:
                step_events.settle(conn, one.id)
    for digest in {one.digest for one in events} - {""}:
        watching.forget(digest)
    return heard
