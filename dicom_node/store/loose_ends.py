"""Finds work that should be there and is not: reads across revisions, work, reports and deliveries, changes none."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, and_, exists, select

from dicom_node.db.schema import deliveries, events, reports, revisions, work_items
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.store.faults import Code, Fault


def loose_ends(conn: Connection) -> Iterator[Fault]:
    """Yield every closed revision that nobody is going to answer, and every report that nobody is going to send."""
    this = and_(
        work_items.c.study_instance_uid == revisions.c.study_instance_uid,
        work_items.c.revision == revisions.c.number,
        work_items.c.kind == Kind.ANALYSE,
    )
    answered = exists().where(
        reports.c.study_instance_uid == revisions.c.study_instance_uid, reports.c.revision == revisions.c.number
    )
    newer = revisions.alias()
    superseded = exists().where(
        newer.c.study_instance_uid == revisions.c.study_instance_uid, newer.c.number > revisions.c.number
    )
    query = (
        select(revisions.c.study_instance_uid, revisions.c.number, work_items.c.state, superseded)
        .outerjoin(work_items, this)
        .where(revisions.c.closed_at.is_not(None), ~answered)
        .order_by(revisions.c.study_instance_uid, revisions.c.number)
    )
    for study, number, state, has_newer in conn.execute(query):
        if state is None:
            told = "closed, and its analysis was never asked for"
            yield Fault(Code.NO_ANALYSIS, f"revision {number} of {study}", told, study, number)
        elif state in {State.COMPLETED, State.FAILED} and not has_newer:  # which holds the same images and more
            told = f"its analysis is {state} and there is no report"
            yield Fault(Code.UNANSWERED, f"revision {number} of {study}", told, study, number)
    yield from _never_sent(conn)
    yield from _unrecorded(conn)


def _never_sent(conn: Connection) -> Iterator[Fault]:
    """Compare the destinations that a report was made for, as its event tells, with the deliveries asked for."""
    asked = select(work_items.c.destination).where(work_items.c.kind == Kind.DELIVER)
    for study, detail in conn.execute(
        select(events.c.study_instance_uid, events.c.detail)
        .where(events.c.kind == "report.stored")
        .order_by(events.c.id)
    ):
        wanted = set(detail.get("destinations", ()))
        if not wanted:
            continue
        number = int(detail["revision"])
        made = select(reports.c.id).where(reports.c.study_instance_uid == study, reports.c.revision == number)
        if conn.execute(made).first() is None:
            continue  # it has no report any more: told of above
        has = conn.execute(
            asked.where(work_items.c.study_instance_uid == study, work_items.c.revision == number)
        ).scalars()
        for name in sorted(wanted - set(has)):
            told = f"its report was made for {name} and its delivery was never asked for"
            yield Fault(
                Code.NO_DELIVERY,
                f"revision {number} of {study} to {name}",
                told,
                study,
                number,
                destination=name,
            )


def _unrecorded(conn: Connection) -> Iterator[Fault]:
    sent = exists().where(
        reports.c.study_instance_uid == work_items.c.study_instance_uid,
        reports.c.revision == work_items.c.revision,
        deliveries.c.sop_instance_uid == reports.c.sop_instance_uid,
        deliveries.c.destination == work_items.c.destination,
    )
    rows = conn.execute(
        select(work_items.c.study_instance_uid, work_items.c.revision, work_items.c.destination)
        .where(work_items.c.kind == Kind.DELIVER, work_items.c.state == State.COMPLETED, ~sent)
        .order_by(work_items.c.id)
    )
    for study, number, name in rows:
        told = "counts as delivered, and no answer of the destination is recorded. Ask the destination"
        yield Fault(
            Code.UNRECORDED_DELIVERY,
            f"revision {number} of {study} to {name}",
            told,
            study,
            number,
            destination=name,
        )
