"""Keeps account of the display objects made beside reports. Owns their table; never commits.

Their bytes lie among the reports'. Where an object was delivered to stands in the same table as for a report.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert
from dicom_node.db.schema import deliveries, objects
from dicom_node.domain.types import Report


@dataclass(frozen=True, slots=True)
class StoredObject:
    """A display object the node holds; `digest` is the SHA-256 (hex) of its bytes."""

    kind: str
    sop_instance_uid: str
    sop_class_uid: str
    digest: str


def add(
    conn: Connection,
    one: Report,
    *,
    kind: str,
    digest: str,
    revision: int,
    report_sop_instance_uid: str,
    at: datetime,
) -> None:
    """Account for an object whose bytes are already in the store; one that is known already stands."""
    conn.execute(
        insert(conn, objects)
        .values(
            study_instance_uid=one.study_instance_uid,
            revision=revision,
            report_sop_instance_uid=report_sop_instance_uid,
            kind=kind,
            sop_instance_uid=one.sop_instance_uid,
            sop_class_uid=one.sop_class_uid,
            series_instance_uid=one.series_instance_uid,
            digest=digest,
            created_at=at,
        )
        .on_conflict_do_nothing(index_elements=["sop_instance_uid"])
    )


def of_report(conn: Connection, report_sop_instance_uid: str, kinds: Sequence[str]) -> tuple[StoredObject, ...]:
    """Return the objects of some kinds beside a report, in the order they were made; without those that are lost."""
    rows = conn.execute(
        select(objects)
        .where(
            objects.c.report_sop_instance_uid == report_sop_instance_uid,
            objects.c.kind.in_(kinds),
            objects.c.kept == "yes",
        )
        .order_by(objects.c.id)
    )
    return tuple(StoredObject(row.kind, row.sop_instance_uid, row.sop_class_uid, row.digest) for row in rows)


def delivered(conn: Connection, report_sop_instance_uid: str, destination: str) -> tuple[StoredObject, ...]:
    """Return the objects beside a report that a destination said it stored."""
    rows = conn.execute(
        select(objects)
        .join(deliveries, deliveries.c.sop_instance_uid == objects.c.sop_instance_uid)
        .where(
            objects.c.report_sop_instance_uid == report_sop_instance_uid,
            deliveries.c.destination == destination,
        )
        .order_by(objects.c.id)
    )
    return tuple(StoredObject(row.kind, row.sop_instance_uid, row.sop_class_uid, row.digest) for row in rows)


def settle(conn: Connection, report_sop_instance_uid: str, destination: str, how: str, at: datetime) -> None:
    """Note that what confirmed a report's delivery confirmed those of its objects."""
    conn.execute(
        update(deliveries)
        .where(_at(report_sop_instance_uid, destination))
        .values(confirmed=how, confirmed_at=at)
    )


def withdraw(conn: Connection, report_sop_instance_uid: str, destination: str) -> None:
    """Forget the deliveries of a report's objects, so that they are sent again with it."""
    conn.execute(delete(deliveries).where(_at(report_sop_instance_uid, destination)))


def among(conn: Connection, sop_instance_uids: Sequence[str]) -> set[str]:
    """Return which of some UIDs are display objects of this node."""
    found = select(objects.c.sop_instance_uid).where(objects.c.sop_instance_uid.in_(sop_instance_uids))
    return set(conn.execute(found).scalars())


def forget(conn: Connection, sop_instance_uids: Collection[str], destination: str) -> None:
    """Forget the deliveries of some objects at a destination that has not got them."""
    conn.execute(
        delete(deliveries).where(
            deliveries.c.sop_instance_uid.in_(sop_instance_uids), deliveries.c.destination == destination
        )
    )


def _at(report_sop_instance_uid: str, destination: str) -> ColumnElement[bool]:
    beside = select(objects.c.sop_instance_uid).where(
        objects.c.report_sop_instance_uid == report_sop_instance_uid
    )
    return and_(deliveries.c.sop_instance_uid.in_(beside), deliveries.c.destination == destination)


def lose(conn: Connection, digest: str, at: datetime) -> None:
    """Note that an object's bytes are lost; its row stays."""
    row = conn.execute(
        update(objects)
        .where(objects.c.digest == digest, objects.c.kept == "yes")
        .values(kept="lost")
        .returning(objects.c.study_instance_uid, objects.c.sop_instance_uid)
    ).one_or_none()
    if row is not None:
        events.record(
            conn,
            at,
            "object.lost",
            study_instance_uid=row.study_instance_uid,
            sop_instance_uid=row.sop_instance_uid,
        )
