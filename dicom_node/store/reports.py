"""Keeps account of the reports made and of where they were delivered. Owns both tables; never commits.

The first report to a revision under a bank stands: adding it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, cast, delete, or_, select, union_all, update

from dicom_node.db import events, schema
from dicom_node.db.dialect import insert, storable
from dicom_node.domain.types import Delivery, Report, Verdict


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report the node holds; `digest` is the SHA-256 (hex) of its bytes, by which the store finds them."""

    study_instance_uid: str
    revision: int
    bank_hash: str
    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    digest: str
    verdict: Verdict
    result: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredDelivery:
    """An object that a destination said it stored, and when."""

    destination: str
    sop_instance_uid: str
    status: int
    comment: str
    sent_at: datetime
    sent_as: str = ""
    confirmed: str = ""


def add(
    conn: Connection,
    report: Report,
    *,
    digest: str,
    revision: int,
    bank_hash: str,
    verdict: Verdict,
    result: Mapping[str, Any],
    at: datetime,
    destinations: Sequence[str] = (),
) -> StoredReport:
    """Account for a report whose bytes are already in the store; return the report that stands.

    Parameters
    ----------
    conn
        An open transaction that may write.
    report
        Its identifiers are kept; its content is not looked at.
    digest
        What `FileStore.put_report` returned for it.
    revision
        Of the study, that it answers.
    bank_hash
        Of the bank that scored, or "" where none did.
    verdict, result
        What it says; `result` has to be JSON and free of patient attributes.
    at
        Now.
    destinations
        Names of the destinations that it is going to be delivered to, for the record.

    Returns
    -------
    StoredReport
        The one just added, or the earlier one to the same (study, revision, bank). Where their bytes differ,
        which they should not, an event "report.differs" says so.
    """
    table = schema.reports
    added = conn.execute(
        insert(conn, table)
        .values(
            study_instance_uid=report.study_instance_uid,
            revision=revision,
            bank_hash=bank_hash,
            sop_instance_uid=report.sop_instance_uid,
            sop_class_uid=report.sop_class_uid,
            series_instance_uid=report.series_instance_uid,
            digest=digest,
            verdict=verdict,
            result=dict(result),
            created_at=at,
            **_decisive(result),
        )
        .on_conflict_do_nothing(index_elements=["study_instance_uid", "revision", "bank_hash"])
        .returning(table.c.id)
    ).scalar_one_or_none()
    stands = _stored(
        conn.execute(
            select(table).where(
                table.c.study_instance_uid == report.study_instance_uid,
                table.c.revision == revision,
                table.c.bank_hash == bank_hash,
            )
        ).one()
    )
    if added is not None or stands.digest != digest:
        events.record(
            conn,
            at,
            "report.stored" if added is not None else "report.differs",
            study_instance_uid=report.study_instance_uid,
            revision=revision,
            sop_instance_uid=report.sop_instance_uid,
            digest=digest,
            bank_hash=bank_hash,
            verdict=verdict.value,
            destinations=list(destinations),
        )
    return stands


def get(conn: Connection, study_instance_uid: str, revision: int) -> StoredReport | None:
    """Return the report to a revision (the newest, where several banks have answered), or None."""
    table = schema.reports
    row = conn.execute(
        select(table)
        .where(table.c.study_instance_uid == study_instance_uid, table.c.revision == revision)
        .order_by(table.c.id.desc())
        .limit(1)
    ).one_or_none()
    return None if row is None else _stored(row)


def of_study(
    conn: Connection, study_instance_uid: str, before_revision: int | None = None
) -> tuple[StoredReport, ...]:
    """Return the reports of a study by revision, all of them or those to revisions before one."""
    table = schema.reports
    query = select(table).where(table.c.study_instance_uid == study_instance_uid)
    if before_revision is not None:
        query = query.where(table.c.revision < before_revision)
    return tuple(_stored(row) for row in conn.execute(query.order_by(table.c.revision, table.c.id)))


def lose(conn: Connection, sop_instance_uid: str, at: datetime) -> None:
    """Note that a report's bytes are lost; its row stays."""
    table = schema.reports
    study = conn.execute(
        update(table)
        .where(table.c.sop_instance_uid == sop_instance_uid, table.c.kept == "yes")
        .values(kept="lost")
        .returning(table.c.study_instance_uid)
    ).scalar_one_or_none()
    if study is not None:
        events.record(conn, at, "report.lost", study_instance_uid=study, sop_instance_uid=sop_instance_uid)


def is_own(conn: Connection, sop_instance_uid: str) -> bool:
    """Return whether this node made the object (loop guard)."""
    return _study_of(conn, sop_instance_uid) != ""


def mentions_bank(conn: Connection, bank_hash: str) -> bool:
    """Return whether a report held here was made with that bank, as its first or as another measurement."""
    table = schema.reports
    mentioned = cast(table.c.result, Text).contains(bank_hash, autoescape=True)
    found = select(table.c.id).where(or_(table.c.bank_hash == bank_hash, mentioned)).limit(1)
    return conn.execute(found).first() is not None


def record_delivery(conn: Connection, delivery: Delivery, at: datetime) -> bool:
    """Account for an object that a destination stored; False, and nothing is changed, if it was so before."""
    table = schema.deliveries
    added = conn.execute(
        insert(conn, table)
        .values(
            sop_instance_uid=delivery.sop_instance_uid,
            destination=delivery.destination,
            status=delivery.status,
            comment=storable(delivery.comment, 256),
            sent_at=at,
            sent_as=delivery.sent_as,
        )
        .on_conflict_do_nothing(index_elements=["sop_instance_uid", "destination"])
        .returning(table.c.id)
    ).scalar_one_or_none()
    if added is None:
        return False
    _tell(conn, at, "delivery.done", delivery.sop_instance_uid, delivery.destination, status=delivery.status)
    return True


def confirm_delivery(conn: Connection, sop_instance_uid: str, destination: str, how: str, at: datetime) -> None:
    """Note how a delivery was confirmed: "committed", "found", or "unconfirmed" where that could not be found out."""
    table = schema.deliveries
    changed = conn.execute(
        update(table)
        .where(table.c.sop_instance_uid == sop_instance_uid, table.c.destination == destination)
        .values(confirmed=how, confirmed_at=at)
        .returning(table.c.id)
    ).scalar_one_or_none()
    if changed is not None:
        _tell(conn, at, "delivery.confirmed", sop_instance_uid, destination, how=how)


def withdraw_delivery(
    conn: Connection, sop_instance_uid: str, destination: str, reason: str, at: datetime
) -> None:
    """Forget a delivery that the destination says it does not hold, so that the object is sent again."""
    table = schema.deliveries
    gone = conn.execute(
        delete(table)
        .where(table.c.sop_instance_uid == sop_instance_uid, table.c.destination == destination)
        .returning(table.c.id)
    ).scalar_one_or_none()
    if gone is not None:
        _tell(conn, at, "delivery.withdrawn", sop_instance_uid, destination, reason=reason)


def _tell(
    conn: Connection, at: datetime, kind: str, sop_instance_uid: str, destination: str, **detail: Any
) -> None:
    events.record(
        conn,
        at,
        kind,
        study_instance_uid=_study_of(conn, sop_instance_uid),
        sop_instance_uid=sop_instance_uid,
        destination=destination,
        **detail,
    )


def _study_of(conn: Connection, sop_instance_uid: str) -> str:
    """Return the study of a report or of an object beside one, "" where this node made no such object."""
    queries = (
        select(table.c.study_instance_uid).where(table.c.sop_instance_uid == sop_instance_uid)
        for table in (schema.reports, schema.objects)
    )
    return conn.execute(union_all(*queries).limit(1)).scalar_one_or_none() or ""


def deliveries(conn: Connection, sop_instance_uid: str) -> tuple[StoredDelivery, ...]:
    """Return where an object was delivered, by name of the destination."""
    table = schema.deliveries
    rows = conn.execute(
        select(table).where(table.c.sop_instance_uid == sop_instance_uid).order_by(table.c.destination)
    )
    return tuple(
        StoredDelivery(
            row.destination,
            row.sop_instance_uid,
            row.status,
            row.comment,
            row.sent_at,
            row.sent_as,
            row.confirmed,
        )
        for row in rows
    )


def _decisive(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return percentile and z-score of the image that decides, by which lists are ordered."""
    try:
        score = result["images"][result["decisive"]]["score"]
        return {"percentile": float(score["percentile"]), "z_score": float(score["z_score"])}
    except (TypeError, KeyError, IndexError):
        return {"percentile": None, "z_score": None}


def _stored(row: Row[Any]) -> StoredReport:
    return StoredReport(
        study_instance_uid=row.study_instance_uid,
        revision=row.revision,
        bank_hash=row.bank_hash,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=row.sop_class_uid,
        series_instance_uid=row.series_instance_uid,
        digest=row.digest,
        verdict=Verdict(row.verdict),
        result=row.result,
        created_at=row.created_at,
    )
