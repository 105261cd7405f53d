"""A person's second try. A report once made is never changed: analysing again opens the next revision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from dicom_node.domain.states import Action, State, next_state
from dicom_node.domain.types import Kind
from dicom_node.queue import items
from dicom_node.store import reports, studies


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


def retry(conn: Connection, item_id: int, now: datetime) -> Retried:
    """Schedule a FAILED or CANCELED item again.

    An analysis whose *failed* report is already made is answered by a new revision that supersedes it.

    Raises
    ------
    NotFoundError
        If there is no such item.
    IllegalTransitionError
        If its state does not allow it.
    """
    item = items.get(conn, item_id)
    next_state(item.state, Action.REQUEUE)
    if item.kind is not Kind.ANALYSE or reports.get(conn, item.study_instance_uid, item.revision) is None:
        return Retried(items.requeue(conn, item_id, now).id, item.revision)
    number = studies.open_revision(conn, item.study_instance_uid, now)
    # From here on nobody else adds to it or closes it. One that has images is not ours to close.
    ours = not studies.has_images(conn, item.study_instance_uid, number)
    closed = ours and studies.close_revision(conn, item.study_instance_uid, number, now)
    if item.state is State.FAILED:
        items.cancel(conn, item_id, now, reason=f"{item.reason}; analysed again as revision {number}")
    if not closed:
        return Retried(None, number)
    return Retried(items.schedule(conn, Kind.ANALYSE, item.study_instance_uid, number, now), number)
