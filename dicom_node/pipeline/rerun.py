"""Answers a study once more. A report once made is never changed: analysing again opens the next revision.

That revision has the images of those before it, so that the report's UID is still a function of study, revision, bank
and outcome, and the new report names the earlier ones as its predecessors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from dicom_node.db import events
from dicom_node.domain.errors import IllegalTransitionError, NotFoundError
from dicom_node.domain.states import Action, State, next_state
from dicom_node.domain.types import Kind
from dicom_node.queue import items
from dicom_node.store import instances, reports, studies


@dataclass(frozen=True, slots=True)
class Retried:
    """What a retry brought about.

    Attributes
    ----------
    item_id
        The item that will do the work; None where images are still arriving for the revision: gathering closes
        it as always and schedules its analysis then.
    revision
        Of the study, that will be answered.
    """

    item_id: int | None
    revision: int


@dataclass(frozen=True, slots=True)
class Rerun:
    """What became of asking for a study to be analysed again.

    Attributes
    ----------
    state
        "scheduled"; or "waiting" where its analysis waits or is being done already, and nothing was changed.
    item_id, revision
        As for `Retried`.
    """

    state: Literal["scheduled", "waiting"]
    item_id: int | None
    revision: int


def retry(conn: Connection, item_id: int, now: datetime) -> Retried:
    """Schedule a FAILED or CANCELED item again.

    An analysis whose *failed* report is already made is answered by a new revision that supersedes it.

    Raises
    ------
    NotFoundError
        If there is no such item, or the study's images were removed because their time was over.
    IllegalTransitionError
        If its state does not allow it.
    """
    item = items.get(conn, item_id)
    next_state(item.state, Action.REQUEUE)
    if item.kind is not Kind.ANALYSE or reports.get(conn, item.study_instance_uid, item.revision) is None:
        return Retried(items.requeue(conn, item_id, now).id, item.revision)
    if not instances.any_held(conn, item.study_instance_uid):
        raise NotFoundError(
            f"the images of study {item.study_instance_uid} were removed when their time was over; send them again"
        )
    retried = again(conn, item.study_instance_uid, now, item.bank, item.priority)
    if item.state is State.FAILED:
        _superseded(conn, item_id, item.reason, retried.revision, now)
    return retried


def again(
    conn: Connection, study_instance_uid: str, now: datetime, bank: str = "", priority: int = items.ROUTINE
) -> Retried:
    """Have a study's images answered once more, as its next revision."""
    number = studies.open_revision(conn, study_instance_uid, now)
    # From here on nobody else adds to it or closes it. One that has images is not ours to close.
    ours = not studies.has_images(conn, study_instance_uid, number)
    procedure = studies.procedure_of(conn, study_instance_uid, number - 1)
    if not (ours and studies.close_revision(conn, study_instance_uid, number, now, procedure=procedure)):
        return Retried(None, number)
    item_id = items.schedule(conn, Kind.ANALYSE, study_instance_uid, number, now, priority=priority, bank=bank)
    return Retried(item_id, number)


def rerun(
    conn: Connection, study_instance_uid: str, now: datetime, bank: str = "", priority: int = items.ROUTINE
) -> Rerun:
    """Have a study analysed again, with one bank by its name or, where it is "", with those that are active.

    Asked twice while the first analysis has not ended, it is done once.

    Raises
    ------
    NotFoundError
        If the study is not held here, images of it were removed (a report on fewer images must not supersede one on
        all of them unasked), or all of them are lost.
    IllegalTransitionError
        If a bank is named while images are still arriving.
    """
    _see_that_images_are_held(conn, study_instance_uid)
    savepoint = conn.begin_nested()
    retried = again(conn, study_instance_uid, now, bank, priority)
    # Looked at when nobody else can open a revision of the study any more: two who ask at once are told the same.
    ours = retried.item_id
    before = [
        item
        for item in items.of_study(conn, study_instance_uid)
        if item.kind is Kind.ANALYSE and item.bank == bank and item.id != ours
    ]
    for item in before:
        if item.state in (State.SCHEDULED, State.IN_PROGRESS):
            savepoint.rollback()
            return Rerun("waiting", item.id, item.revision)
    if ours is None:
        savepoint.rollback()
        if bank:
            raise IllegalTransitionError(
                f"images are arriving for revision {retried.revision} of study {study_instance_uid}; it is analysed "
                "with the active banks once they are complete. Name a bank after that"
            )
        return Rerun("waiting", None, retried.revision)
    for item in items.of_study(conn, study_instance_uid):
        answered = reports.get(conn, study_instance_uid, item.revision) is not None
        if item.kind is Kind.ANALYSE and item.state is State.FAILED and answered:
            _superseded(conn, item.id, item.reason, retried.revision, now)
    events.record(
        conn, now, "revision.rerun", study_instance_uid=study_instance_uid, revision=retried.revision, bank=bank
    )
    savepoint.commit()
    return Rerun("scheduled", ours, retried.revision)


def _superseded(conn: Connection, item_id: int, reason: str, revision: int, now: datetime) -> None:
    items.cancel(conn, item_id, now, reason=f"{reason}; analysed again as revision {revision}")


def _see_that_images_are_held(conn: Connection, study_instance_uid: str) -> None:
    if studies.latest_revision(conn, study_instance_uid) is None:
        raise NotFoundError(f"study {study_instance_uid} is not held here")
    kept = instances.kept(conn, study_instance_uid)
    total, gone = sum(kept.values()), kept.get("going", 0) + kept.get("gone", 0)
    if gone:
        raise NotFoundError(
            f"{gone} of {total} images of study {study_instance_uid} were removed when their time was over; "
            "send the study again, then have it analysed"
        )
    if not kept.get("yes"):
        raise NotFoundError(
            f"no image of study {study_instance_uid} is held whole; send the study again: it is analysed then"
        )
