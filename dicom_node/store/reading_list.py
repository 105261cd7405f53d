"""Which studies a person's list shows, in which order: one statement, that joins only what was asked for.

Reads across all tables and changes none. What stands in a line is for `reading_rows` to fetch, for one page of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Subquery,
    and_,
    case,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
)

from dicom_node.db.dialect import storable
from dicom_node.db.schema import deliveries, instances, marks, reports, revisions, work_items
from dicom_node.domain.reading import Filters, Order, Progress
from dicom_node.domain.sop_classes import GROUPS
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.domain.urgency import ROUTINE

CONFIRMED = {"committed": "committed", "found": "found", "sent, unconfirmed": "unconfirmed"}
"""State of a delivery to what `deliveries.confirmed` says."""

_LEFT = (State.SCHEDULED, State.IN_PROGRESS)
_BY_ITEM = {
    "waiting": _LEFT,
    "failed": (State.FAILED,),
    "canceled": (State.CANCELED,),
    "done": (State.COMPLETED,),
}
MODALITIES = ("CR", "DX", "SC")
"""By what a list is filtered: the kinds of SOP classes. What a secondary capture says of itself is in its header."""


@dataclass(frozen=True, slots=True)
class Page:
    """Study Instance UIDs in order, and how many studies meet the filters in all."""

    studies: tuple[str, ...]
    total: int


def page(
    conn: Connection,
    filters: Filters,
    *,
    own: Collection[str],
    offset: int,
    limit: int,
    among: Collection[str] | None = None,
) -> Page:
    """Return one page of the studies that meet the filters.

    Parameters
    ----------
    filters
        `search` itself is not looked at but for a Study Instance UID: patient attributes are in no table.
    own
        Calling AE titles of self-tests: studies that came from these alone are left out.
    among
        The studies that a search found; None where there was none.
    """
    came = _came(own)
    query, where = _asked(came, filters, among)
    query = query.where(*where)
    found = conn.execute(query.limit(limit).offset(offset)).all()
    if found or not offset:
        return Page(tuple(row[0] for row in found), found[0].total if found else 0)
    counted = conn.execute(query.limit(1)).first()  # a page behind the end
    return Page((), 0 if counted is None else counted.total)


def _came(own: Collection[str]) -> Subquery:
    """Return one row a study that came from outside: when its last image did."""
    outside = func.max(case((instances.c.calling_ae_title.in_(own), 0), else_=1))
    return (
        select(instances.c.study_instance_uid.label("study"), func.max(instances.c.received_at).label("at"))
        .group_by(instances.c.study_instance_uid)
        .having(outside == 1 if own else true())
        .subquery("came")
    )


def _asked(
    came: Subquery, filters: Filters, among: Collection[str] | None
) -> tuple[Select[Any], list[ColumnElement[bool]]]:
    study = came.c.study
    of_work = filters.order is Order.URGENT or bool(filters.progress)
    of_report = bool(
        filters.order is Order.UNUSUAL
        or filters.verdicts
        or filters.progress
        or filters.delivery
        or filters.destination
        or filters.minimum_percentile is not None
    )
    tables: FromClause = came
    if of_report:
        tables = tables.outerjoin(reports, and_(reports.c.study_instance_uid == study, ~superseded()))
    if of_work:
        tables = tables.outerjoin(work_items, _newest_analysis(study))
    left = _left_to_do()
    if filters.order is Order.URGENT:
        tables = tables.outerjoin(left, left.c.study == study)
    where: list[ColumnElement[bool]] = []
    if filters.verdicts:
        where.append(reports.c.verdict.in_(filters.verdicts))
    if filters.minimum_percentile is not None:
        where.append(reports.c.percentile >= filters.minimum_percentile)
    if filters.progress:
        where.append(_progress(study).in_([one.value for one in filters.progress]))
    if filters.since is not None:
        where.append(came.c.at >= filters.since)
    if filters.until is not None:
        where.append(came.c.at < filters.until)
    if filters.marks:
        where.append(_marked(study, filters.marks))
    if filters.modality:
        classes = GROUPS[filters.modality] if filters.modality in MODALITIES else ()
        where.append(
            exists().where(instances.c.study_instance_uid == study, instances.c.sop_class_uid.in_(classes))
        )
    if filters.destination or filters.delivery:
        where.append(_delivery(study, storable(filters.destination), filters.delivery))
    if among is not None:
        named = study.in_(list(among))
        term = filters.search.strip()
        where.append(
            or_(named, study.startswith(term, autoescape=True))
            if re.fullmatch(r"[0-9.]{3,64}", term)
            else named
        )
    query = select(study, func.count().over().label("total")).select_from(tables)
    return query.order_by(*_order(came, left, filters.order)), where


def _order(came: Subquery, left: Subquery, order: Order) -> list[ColumnElement[Any]]:
    newest = [came.c.at.desc(), came.c.study]
    if order is Order.UNUSUAL:
        return [reports.c.percentile.desc().nulls_last(), reports.c.z_score.desc().nulls_last(), *newest]
    if order is Order.URGENT:
        return [func.coalesce(left.c.priority, work_items.c.priority, ROUTINE), *newest]
    return newest


def _left_to_do() -> Subquery:
    """Return one row a study of which work is left: its most urgent priority."""
    return (
        select(
            work_items.c.study_instance_uid.label("study"), func.min(work_items.c.priority).label("priority")
        )
        .where(work_items.c.state.in_(_LEFT))
        .group_by(work_items.c.study_instance_uid)
        .subquery("left_to_do")
    )


def superseded() -> ColumnElement[bool]:
    """Say whether there is a later report on the same study than the row of `reports` in the enclosing query."""
    later = reports.alias()
    after = or_(
        later.c.revision > reports.c.revision,
        and_(later.c.revision == reports.c.revision, later.c.id > reports.c.id),
    )
    return exists().where(later.c.study_instance_uid == reports.c.study_instance_uid, after)


def _newest_analysis(study: ColumnElement[str]) -> ColumnElement[bool]:
    later = work_items.alias()
    return and_(
        work_items.c.kind == Kind.ANALYSE,
        work_items.c.study_instance_uid == study,
        ~exists().where(
            later.c.kind == Kind.ANALYSE,
            later.c.study_instance_uid == work_items.c.study_instance_uid,
            later.c.revision > work_items.c.revision,
        ),
    )


def _progress(study: ColumnElement[str]) -> ColumnElement[str]:
    """Return how far the node is, as `pipeline.desk_list.progress` says it of one study."""
    arriving = exists().where(revisions.c.study_instance_uid == study, revisions.c.closed_at.is_(None))
    return case(
        (arriving, literal(Progress.ARRIVING.value)),
        (work_items.c.state == State.IN_PROGRESS, literal(Progress.ANALYSING.value)),
        (work_items.c.state == State.SCHEDULED, literal(Progress.QUEUED.value)),
        (work_items.c.state == State.FAILED, literal(Progress.FAILED.value)),
        (reports.c.id.is_not(None), literal(Progress.ANSWERED.value)),
        (work_items.c.id.is_(None), literal(Progress.QUEUED.value)),
        else_=literal(Progress.FAILED.value),
    )


def _marked(study: ColumnElement[str], wanted: Collection[str]) -> ColumnElement[bool]:
    later = marks.alias()
    last = ~exists().where(later.c.study_instance_uid == marks.c.study_instance_uid, later.c.id > marks.c.id)

    def said(*words: str) -> ColumnElement[bool]:
        return exists().where(marks.c.study_instance_uid == study, marks.c.mark.in_(words), last)

    words = [word for word in wanted if word]
    nothing = ~said("normal", "abnormal")
    return or_(said(*words) if words else false(), nothing if "" in wanted else false())


def _delivery(study: ColumnElement[str], destination: str, state: str) -> ColumnElement[bool]:
    """Return whether the newest report is in that state ("" for any) at that destination ("" for any of them)."""
    sent = and_(
        deliveries.c.sop_instance_uid == reports.c.sop_instance_uid,
        deliveries.c.destination == destination if destination else true(),
    )
    item = work_items.alias("delivering")
    asked = and_(
        item.c.kind == Kind.DELIVER,
        item.c.study_instance_uid == study,
        item.c.revision == reports.c.revision,
        item.c.destination == destination if destination else true(),
    )
    same = item.c.destination == deliveries.c.destination
    if not state:
        return or_(exists().where(sent), exists().where(asked))
    if state in CONFIRMED:
        return exists().where(sent, deliveries.c.confirmed == CONFIRMED[state])
    if state in ("sent", "sent, waiting for confirmation"):
        left = exists().where(asked, same, item.c.state.in_(_LEFT)).correlate_except(item)
        return exists().where(sent, deliveries.c.confirmed == "", ~left if state == "sent" else left)
    if state not in _BY_ITEM:
        return false()
    there = exists().where(sent, same).correlate_except(deliveries)
    return exists().where(asked, item.c.state.in_(_BY_ITEM[state]), ~there).correlate_except(item)
