"""A person's second try. A report once made is never changed: analysing again opens the next revision."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from dicom_node.domain.states import Action, State, next_state
from dicom_node.domain.types import Kind
from dicom_node.queue import items
from dicom_node.store import reports, studies


def retry(conn: Connection, item_id: int, now: datetime) -> int:
    """Schedule a FAILED or CANCELED item again; return the id of the item that will do the work.

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
        return items.requeue(conn, item_id, now).id
    number = studies.open_revision(conn, item.study_instance_uid, now)
    studies.close_revision(conn, item.study_instance_uid, number, now)
    if item.state is State.FAILED:
        items.cancel(conn, item_id, now, reason=f"{item.reason}; analysed again as revision {number}")
    return items.schedule(conn, Kind.ANALYSE, item.study_instance_uid, number, now)
