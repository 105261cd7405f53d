"""Keeps account of the storage commitment that destinations were asked for. Owns its table; never commits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select, update

from dicom_node.db import events, schema
from dicom_node.db.dialect import insert
from dicom_node.domain.commitment import CommitmentResult
from dicom_node.store import objects


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. `failure_reason` is None where it is not answered, or answered with a commitment."""

    transaction_uid: str
    sop_instance_uid: str
    destination: str
    asked_at: datetime
    answered_at: datetime | None
    failure_reason: int | None


def ask(conn: Connection, transaction_uid: str, sop_instance_uid: str, destination: str, at: datetime) -> None:
    """Note that a destination is asked for a report's commitment; committed before it is, so that no answer is lost."""
    conn.execute(
        insert(conn, schema.commitments).values(
            transaction_uid=transaction_uid,
            sop_instance_uid=sop_instance_uid,
            destination=destination,
            asked_at=at,
        )
    )


def forget(conn: Connection, transaction_uid: str) -> None:
    """Take back a question that could not be put; an answer to it would change nothing."""
    conn.execute(delete(schema.commitments).where(schema.commitments.c.transaction_uid == transaction_uid))


def answer(conn: Connection, result: CommitmentResult, at: datetime) -> Asked | None:
    """Note the answer to a request; return the request, None if no such one waits for an answer.

    What is answered for the display objects beside the report decides nothing: the deliveries of those that are not
    committed are forgotten, and the report's stands.
    """
    table = schema.commitments
    beside = objects.among(conn, [failure.reference.sop_instance_uid for failure in result.failed])
    failures = [f.reason for f in result.failed if f.reference.sop_instance_uid not in beside]
    row = conn.execute(
        update(table)
        .where(table.c.transaction_uid == result.transaction_uid, table.c.answered_at.is_(None))
        .values(answered_at=at, failure_reason=failures[0] if failures else None)
        .returning(table)
    ).one_or_none()
    if row is None:
        return None
    objects.forget(conn, beside, row.destination)
    events.record(
        conn,
        at,
        "commitment.answered",
        sop_instance_uid=row.sop_instance_uid,
        destination=row.destination,
        committed=not failures,
        reasons=[f"0x{reason:04X}" for reason in failures],
        objects_failed=len(beside),
    )
    return Asked(*row)


def known(conn: Connection, transaction_uid: str) -> bool:
    """Return whether a request has this Transaction UID, answered or not."""
    table = schema.commitments
    found = select(table.c.transaction_uid).where(table.c.transaction_uid == transaction_uid)
    return conn.execute(found).first() is not None


def newest(conn: Connection, sop_instance_uid: str, destination: str, since: datetime) -> Asked | None:
    """Return the last request for a report at a destination that was made since a moment, or None."""
    table = schema.commitments
    row = conn.execute(
        select(table)
        .where(
            table.c.sop_instance_uid == sop_instance_uid,
            table.c.destination == destination,
            table.c.asked_at >= since,
        )
        .order_by(table.c.asked_at.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else Asked(*row)
