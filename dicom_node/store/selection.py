"""Which studies and reports a person means: by verdict, time, and what waits. Reads across all tables, changes none."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Text, and_, cast, exists, func, or_, select

from dicom_node.db.schema import deliveries, instances, reports, revisions, work_items
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind, Verdict

UNSERVED = "no_bank"
"""Code of the refusal of an image that no bank serves."""

_LEFT = (State.SCHEDULED, State.IN_PROGRESS, State.FAILED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Conditions on a study; all that are given hold.

    Attributes
    ----------
    verdict
        Of the newest report.
    unserved
        The newest report says *not analysed*, and no bank served one of the images.
    since, until
        The last image came at this moment or later; before this moment.
    states, destination
        Some of its work is in one of these states (by default: is left to do or has failed), for this destination.
    """

    verdict: Verdict | None = None
    unserved: bool = False
    since: datetime | None = None
    until: datetime | None = None
    states: Collection[State] = ()
    destination: str = ""


@dataclass(frozen=True, slots=True)
class ReportFor:
    """A report and what is known of it at one destination; `item` and `state` are those of its delivery, if any."""

    study_instance_uid: str
    revision: int
    held: bool
    delivered: bool
    item: int | None
    state: State | None


def studies(conn: Connection, wanted: Wanted, own: Collection[str]) -> tuple[str, ...]:
    """Return the studies that are meant, the one that came first at the beginning.

    Parameters
    ----------
    own
        Calling AE titles of self-tests: studies that came from these alone are left out.
    """
    study = revisions.c.study_instance_uid
    rows = conn.execute(
        select(study)
        .where(*conditions(study, wanted), _from_outside(study, own))
        .group_by(study)
        .order_by(func.min(revisions.c.opened_at), study)
    )
    return tuple(rows.scalars())


def conditions(study: ColumnElement[str], wanted: Wanted) -> list[ColumnElement[bool]]:
    """Return what a column of Study Instance UIDs has to meet."""
    found: list[ColumnElement[bool]] = []
    verdict = Verdict.NOT_ANALYSED if wanted.unserved else wanted.verdict
    if verdict is not None:
        found.append(_answered(study, verdict, unserved=wanted.unserved))
    if wanted.since is not None or wanted.until is not None:
        last = select(func.max(instances.c.received_at)).where(instances.c.study_instance_uid == study)
        came = last.correlate_except(instances).scalar_subquery()
        found += [] if wanted.since is None else [came >= wanted.since]
        found += [] if wanted.until is None else [came < wanted.until]
    if wanted.states or wanted.destination:
        work = and_(work_items.c.study_instance_uid == study, work_items.c.state.in_(wanted.states or _LEFT))
        if wanted.destination:
            work = and_(work, work_items.c.destination == wanted.destination)
        found.append(exists().where(work))
    return found


def reports_for(
    conn: Connection,
    destination: str,
    own: Collection[str],
    *,
    since: datetime | None = None,
    verdict: Verdict | None = None,
    newest: bool = False,
) -> tuple[ReportFor, ...]:
    """Return reports, oldest first, with what is known of them at a destination; none of a self-test.

    Parameters
    ----------
    since
        Only those made then or later.
    verdict
        Only those that say so.
    newest
        Only the last one of each study.
    """
    delivery = and_(
        work_items.c.kind == Kind.DELIVER,
        work_items.c.study_instance_uid == reports.c.study_instance_uid,
        work_items.c.revision == reports.c.revision,
        work_items.c.destination == destination,
    )
    sent = exists().where(
        deliveries.c.sop_instance_uid == reports.c.sop_instance_uid, deliveries.c.destination == destination
    )
    query = (
        select(reports, work_items.c.id.label("item"), work_items.c.state, sent.label("delivered"))
        .outerjoin(work_items, delivery)
        .where(_from_outside(reports.c.study_instance_uid, own))
    )
    if since is not None:
        query = query.where(reports.c.created_at >= since)
    if verdict is not None:
        query = query.where(reports.c.verdict == verdict)
    if newest:
        query = query.where(~_superseded())
    return tuple(
        ReportFor(
            row.study_instance_uid,
            row.revision,
            row.kept == "yes",
            bool(row.delivered),
            row.item,
            None if row.state is None else State(row.state),
        )
        for row in conn.execute(query.order_by(reports.c.id))
    )


def _answered(study: ColumnElement[str], verdict: Verdict, *, unserved: bool) -> ColumnElement[bool]:
    answer = and_(reports.c.study_instance_uid == study, reports.c.verdict == verdict, ~_superseded())
    if unserved:
        answer = and_(answer, cast(reports.c.result, Text).contains(f'"{UNSERVED}"', autoescape=True))
    return exists().where(answer)


def _superseded() -> ColumnElement[bool]:
    """Whether there is a later report on the same study than the row of `reports` in the enclosing query."""
    later = reports.alias()
    after = or_(
        later.c.revision > reports.c.revision,
        and_(later.c.revision == reports.c.revision, later.c.id > reports.c.id),
    )
    return exists().where(later.c.study_instance_uid == reports.c.study_instance_uid, after)


def _from_outside(study: ColumnElement[str], own: Collection[str]) -> ColumnElement[bool]:
    return exists().where(instances.c.study_instance_uid == study, instances.c.calling_ae_title.not_in(own))
