"""Shows what is held, for people: reads across all tables and changes none. No patient attribute is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Table, case, func, select

from dicom_node.db import schema
from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.states import State
from dicom_node.store.selection import Wanted, conditions

Rows = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class StudySummary:
    """One line of the list of studies.

    Attributes
    ----------
    revision, is_open
        Number of the newest revision, and whether images may still come to it.
    images, conflicts
        Images held, and those kept apart because their SOP Instance UID was taken.
    verdict
        Of the newest report; None before the first.
    deliveries
        How often one of the study's reports was stored by a destination.
    waiting
        Work items that are neither completed nor canceled: id, kind, revision, destination, state, attempts,
        reason.
    """

    study_instance_uid: str
    revision: int
    is_open: bool
    first_received_at: datetime
    last_received_at: datetime
    images: int
    conflicts: int
    verdict: str | None
    deliveries: int
    waiting: Rows


@dataclass(frozen=True, slots=True)
class StudyDetail:
    """Everything held of one study; each row maps the column's name to its value."""

    study_instance_uid: str
    revisions: Rows
    instances: Rows
    work_items: Rows
    reports: Rows
    objects: Rows
    deliveries: Rows
    commitments: Rows
    events: Rows


def list_studies(
    conn: Connection, limit: int = 50, offset: int = 0, wanted: Wanted | None = None
) -> tuple[StudySummary, ...]:
    """Return the studies held, or those of them that are meant, the one that an image came for last first."""
    revisions, instances, reports, sent = schema.revisions, schema.instances, schema.reports, schema.deliveries
    number = func.max(revisions.c.number)
    latest = func.max(revisions.c.last_received_at)
    rows = conn.execute(
        select(
            revisions.c.study_instance_uid,
            number.label("revision"),
            (func.count() > func.count(revisions.c.closed_at)).label("is_open"),
            func.min(revisions.c.opened_at).label("first_received_at"),
            latest.label("last_received_at"),
        )
        .where(*([] if wanted is None else conditions(revisions.c.study_instance_uid, wanted)))
        .group_by(revisions.c.study_instance_uid)
        .order_by(latest.desc(), revisions.c.study_instance_uid)
        .limit(limit)
        .offset(offset)
    ).all()
    uids = [row.study_instance_uid for row in rows]
    images = {
        row.study_instance_uid: row
        for row in conn.execute(
            select(
                instances.c.study_instance_uid,
                func.sum(case((instances.c.conflict, 0), else_=1)).label("images"),
                func.sum(case((instances.c.conflict, 1), else_=0)).label("conflicts"),
            )
            .where(instances.c.study_instance_uid.in_(uids))
            .group_by(instances.c.study_instance_uid)
        )
    }
    verdicts: dict[str, str] = {
        row.study_instance_uid: row.verdict
        for row in conn.execute(
            select(reports.c.study_instance_uid, reports.c.verdict)
            .where(reports.c.study_instance_uid.in_(uids))
            .order_by(reports.c.revision, reports.c.id)
        )
    }
    delivered: dict[str, int] = {
        row.study_instance_uid: row.times
        for row in conn.execute(
            select(reports.c.study_instance_uid, func.count().label("times"))
            .join(sent, sent.c.sop_instance_uid == reports.c.sop_instance_uid)
            .where(reports.c.study_instance_uid.in_(uids))
            .group_by(reports.c.study_instance_uid)
        )
    }
    waiting = _waiting(conn, uids)
    return tuple(
        StudySummary(
            study_instance_uid=uid,
            revision=row.revision,
            is_open=bool(row.is_open),
            first_received_at=row.first_received_at,
            last_received_at=row.last_received_at,
            images=images[uid].images if uid in images else 0,
            conflicts=images[uid].conflicts if uid in images else 0,
            verdict=verdicts.get(uid),
            deliveries=delivered.get(uid, 0),
            waiting=tuple(waiting.get(uid, ())),
        )
        for uid, row in zip(uids, rows, strict=True)
    )


def show_study(conn: Connection, study_instance_uid: str) -> StudyDetail:
    """Return everything held of one study, each kind in the order in which it came about.

    Raises
    ------
    NotFoundError
        If no image of that study was ever received.
    """

    def rows(table: Table, order: str, hidden: tuple[str, ...] = ()) -> Rows:
        columns = [column for column in table.c if column.name not in hidden]
        query = select(*columns).where(table.c.study_instance_uid == study_instance_uid)
        return tuple(dict(row._mapping) for row in conn.execute(query.order_by(table.c[order])))  # noqa: SLF001 - SQLAlchemy's public name

    revisions = rows(schema.revisions, "number")
    if not revisions:
        raise NotFoundError(f"study {study_instance_uid} is not held here")
    reports = rows(schema.reports, "id")
    objects = rows(schema.objects, "id")
    made = [row["sop_instance_uid"] for row in (*reports, *objects)]

    def about_what_was_made(table: Table, order: str) -> Rows:
        found = conn.execute(select(table).where(table.c.sop_instance_uid.in_(made)).order_by(table.c[order]))
        return tuple(dict(row._mapping) for row in found)  # noqa: SLF001 - SQLAlchemy's public name

    return StudyDetail(
        study_instance_uid=study_instance_uid,
        revisions=revisions,
        instances=rows(schema.instances, "id"),
        work_items=rows(schema.work_items, "id", hidden=("lease_token",)),
        reports=reports,
        objects=objects,
        deliveries=about_what_was_made(schema.deliveries, "id"),
        commitments=about_what_was_made(schema.commitments, "asked_at"),
        events=rows(schema.events, "id"),
    )


def study_of_report(conn: Connection, sop_instance_uid: str) -> tuple[str, int] | None:
    """Return study and revision that a report answers, None for an unknown one."""
    table = schema.reports
    row = conn.execute(
        select(table.c.study_instance_uid, table.c.revision).where(table.c.sop_instance_uid == sop_instance_uid)
    ).one_or_none()
    return None if row is None else (row.study_instance_uid, row.revision)


def _waiting(conn: Connection, study_instance_uids: list[str]) -> dict[str, list[dict[str, Any]]]:
    table = schema.work_items
    shown = ("id", "kind", "revision", "destination", "state", "attempts", "reason")
    waiting: dict[str, list[dict[str, Any]]] = {}
    for row in conn.execute(
        select(table.c.study_instance_uid, *(table.c[name] for name in shown))
        .where(
            table.c.study_instance_uid.in_(study_instance_uids),
            table.c.state.not_in([State.COMPLETED, State.CANCELED]),
        )
        .order_by(table.c.id)
    ):
        held = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name
        waiting.setdefault(held.pop("study_instance_uid"), []).append(held)
    return waiting
