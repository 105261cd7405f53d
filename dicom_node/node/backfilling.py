"""Builds the duty that fetches studies from archives in bulk."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from dicom_node.db.engine import writing
from dicom_node.node.opening import Node, now
from dicom_node.node.retrieving import archives_of, fetcher
from dicom_node.pipeline.backfill import POLL_SECONDS, Backfill
from dicom_node.pipeline.schedule import Duty

_HELD_OPEN = timedelta(minutes=15)
"""How long a study that is being fetched is waited for, unless it is all here before."""


def backfill(node: Node, stop: threading.Event) -> Backfill:
    """Return what fetches the studies that are due."""
    archives = archives_of(node.config)
    return Backfill(
        node.engine, archives, fetcher(node), now, announce=partial(_announce, node), stopped=stop.is_set
    )


def announcing(node: Node, priority: int) -> Callable[[str, bool], None]:
    """Return what says that a study is being fetched (True), or is all here (False), to be analysed at a priority."""
    return lambda study, begun: _announce(node, study, priority, begun)


def _announce(node: Node, study_instance_uid: str, priority: int, begun: bool) -> None:
    """Have gathering know that a study is on its way, or which images it has, and how urgent it is."""
    from dicom_node.store import expected, holdings

    at = now()
    said = partial(
        expected.put,
        source="fetch",
        key=study_instance_uid,
        study_instance_uid=study_instance_uid,
        at=at,
        priority=priority,
        until=at + _HELD_OPEN,
    )
    with writing(node.engine) as conn:
        if begun:
            said(conn, state="open")
        else:
            said(conn, state="complete", refs=holdings.held(conn, study_instance_uid))


def duties(node: Node, stop: threading.Event) -> list[Duty]:
    """Return the periodic duty, if there are archives to fetch from."""
    if not node.config.archives:
        return []
    return [("fetch from archives", POLL_SECONDS, backfill(node, stop))]
