"""Keeps account of the storage commitment that peers ask of this node. Owns its table; never commits.

A request stands here from before it is accepted until the peer has its report: a crash between the two loses nothing.
What is committed is judged anew for each report, so that no report promises what is lost meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select, update

from dicom_node.db import events, schema
from dicom_node.db.dialect import insert
from dicom_node.domain.commitment import CommitmentRequest, CommitmentResult, Failure, Reference
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.store.files import FileStore

MOST_OPEN = 500
"""Requests that wait for their report at a time."""

_NO_SUCH_INSTANCE, _CLASS_INSTANCE_CONFLICT = 0x0112, 0x0119
_AT_ONCE = 500

_table = schema.commitment_requests


@dataclass(frozen=True, slots=True)
class Owed:
    """A request whose report is due, and how often it was tried to tell it, this time among them."""

    request: CommitmentRequest
    attempts: int


def add(conn: Connection, request: CommitmentRequest, due_at: datetime, most: int = MOST_OPEN) -> None:
    """Record a request; one that comes again takes the place of the former.

    Raises
    ------
    OutOfResourcesError
        If too many are open.
    """
    conn.execute(delete(_table).where(_is(request)))
    if conn.execute(select(func.count()).select_from(_table)).scalar_one() >= most:
        raise OutOfResourcesError(f"{most} storage commitment requests wait for their reports; ask again later")
    conn.execute(
        insert(conn, _table)
        .values(
            calling_ae_title=request.calling_ae_title,
            transaction_uid=request.transaction_uid,
            peer_address=request.peer_address,
            refs=[[one.sop_class_uid, one.sop_instance_uid] for one in request.references],
            asked_at=request.at,
            due_at=due_at,
        )
        .on_conflict_do_nothing()
    )
    events.record(
        conn,
        request.at,
        "commitment.requested",
        transaction_uid=request.transaction_uid,
        calling_ae_title=request.calling_ae_title,
        objects=len(request.references),
    )


def judge(conn: Connection, files: FileStore, request: CommitmentRequest) -> CommitmentResult:
    """Return which of the objects this node answers for: synced, accounted for, and kept.

    Where several came under one SOP Instance UID, the one that counts is that which is scored.
    """
    held: dict[str, tuple[str, str]] = {}
    uids = sorted({reference.sop_instance_uid for reference in request.references})
    for at in range(0, len(uids), _AT_ONCE):
        rows = conn.execute(
            select(
                schema.instances.c.sop_instance_uid,
                schema.instances.c.sop_class_uid,
                schema.instances.c.digest,
            ).where(
                schema.instances.c.sop_instance_uid.in_(uids[at : at + _AT_ONCE]),
                schema.instances.c.conflict.is_(False),
                schema.instances.c.kept == "yes",
            )
        )
        held |= {row.sop_instance_uid: (row.sop_class_uid, row.digest) for row in rows}
    committed: list[Reference] = []
    failed: list[Failure] = []
    for reference in request.references:
        sop_class, digest = held.get(reference.sop_instance_uid, ("", ""))
        if not digest or not files.instance_path(digest).is_file():
            failed.append(Failure(reference, _NO_SUCH_INSTANCE))
        elif sop_class != reference.sop_class_uid:
            failed.append(Failure(reference, _CLASS_INSTANCE_CONFLICT))
        else:
            committed.append(reference)
    return CommitmentResult(request.transaction_uid, tuple(committed), tuple(failed))


def postpone(conn: Connection, request: CommitmentRequest, due_at: datetime) -> None:
    """Let the report be sent at that moment on an association of this node's own."""
    conn.execute(update(_table).where(_is(request)).values(due_at=due_at))


def resume(conn: Connection, now: datetime) -> None:
    """Let every report be sent at once that waits for an association which nobody holds any more."""
    conn.execute(update(_table).where(_table.c.attempts == 0, _table.c.due_at > now).values(due_at=now))


def any_due(conn: Connection, now: datetime) -> bool:
    """Return whether a report is due; needs no transaction that may write."""
    return conn.execute(select(_table.c.due_at).where(_table.c.due_at <= now).limit(1)).first() is not None


def take_due(conn: Connection, now: datetime, until: datetime) -> Owed | None:
    """Return the request whose report has been due for longest, or None; nobody else is given it before `until`."""
    first = (
        select(_table.c.calling_ae_title, _table.c.transaction_uid)
        .where(_table.c.due_at <= now)
        .order_by(_table.c.due_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    found = conn.execute(first).one_or_none()
    if found is None:
        return None
    row = conn.execute(
        update(_table)
        .where(
            _table.c.calling_ae_title == found.calling_ae_title,
            _table.c.transaction_uid == found.transaction_uid,
        )
        .values(due_at=until, attempts=_table.c.attempts + 1)
        .returning(_table)
    ).one()
    references = tuple(Reference(*one) for one in row.refs)
    request = CommitmentRequest(
        row.transaction_uid, references, row.calling_ae_title, row.peer_address, row.asked_at
    )
    return Owed(request, row.attempts)


def settle(conn: Connection, request: CommitmentRequest, at: datetime, how: str = "") -> bool:
    """Forget a request whose report the peer has, or never will, for the reason `how`; False if it is gone already."""
    gone = conn.execute(
        delete(_table).where(_is(request)).returning(_table.c.transaction_uid)
    ).scalar_one_or_none()
    if gone is None:
        return False
    detail: dict[str, Any] = {"reason": how} if how else {}
    events.record(
        conn,
        at,
        "commitment.undelivered" if how else "commitment.reported",
        transaction_uid=request.transaction_uid,
        calling_ae_title=request.calling_ae_title,
        **detail,
    )
    return True


def _is(request: CommitmentRequest) -> ColumnElement[bool]:
    return and_(
        _table.c.calling_ae_title == request.calling_ae_title,
        _table.c.transaction_uid == request.transaction_uid,
    )
