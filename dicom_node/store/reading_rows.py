"""What stands in the lines of a person's list: everything of some studies at once, in a fixed number of statements.

Reads across all tables and changes none. No patient attribute is in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, case, exists, func, select

from dicom_node.db.schema import deliveries, instances, marks, reports, revisions, work_items
from dicom_node.domain.types import Kind
from dicom_node.store.reading_list import superseded

Fetched = Mapping[str, Any]


@dataclass(slots=True)
class Line:
    """What is held of one study, as rows of the tables.

    Attributes
    ----------
    received_at
        When its last image came.
    revision, revision_at, is_open
        The newest one, when the last thing came for it, and whether more may come.
    images
        How many there are, without those in conflict; those that were let go count.
    sop_classes
        Of its images.
    first
        The image that stands for the study: the one that decides, else the first by its UIDs, of those held if any
        is; None where every one is in conflict. Has sop_instance_uid, digest, kept.
    report, analysis
        The newest report, and the newest analysis' work item; None where there is none.
    deliveries, items
        Of that report: where it is, and the work that brings it there.
    mark
        The last word about it, "" for none.
    """

    study_instance_uid: str
    received_at: datetime
    revision: int = 0
    revision_at: datetime | None = None
    is_open: bool = False
    images: int = 0
    sop_classes: set[str] = field(default_factory=set)
    first: Fetched | None = None
    report: Fetched | None = None
    analysis: Fetched | None = None
    deliveries: list[Fetched] = field(default_factory=list)
    items: list[Fetched] = field(default_factory=list)
    mark: str = ""


def lines(conn: Connection, studies: Sequence[str]) -> tuple[Line, ...]:
    """Return the lines of some studies, in their order; one that is not held has none."""
    if not studies:
        return ()
    found = _images(conn, studies)
    _revisions(conn, found)
    _reports(conn, found)
    _work(conn, found)
    _marks(conn, found)
    _first(conn, found)
    return tuple(found[study] for study in studies if study in found)


def _images(conn: Connection, studies: Sequence[str]) -> dict[str, Line]:
    found: dict[str, Line] = {}
    rows = conn.execute(
        select(
            instances.c.study_instance_uid,
            instances.c.sop_class_uid,
            instances.c.conflict,
            func.count().label("images"),
            func.max(instances.c.received_at).label("at"),
        )
        .where(instances.c.study_instance_uid.in_(studies))
        .group_by(instances.c.study_instance_uid, instances.c.sop_class_uid, instances.c.conflict)
    )
    for row in rows:
        line = found.setdefault(row.study_instance_uid, Line(row.study_instance_uid, row.at))
        line.received_at = max(line.received_at, row.at)
        line.sop_classes.add(row.sop_class_uid)
        line.images += 0 if row.conflict else row.images
    return found


def _revisions(conn: Connection, found: Mapping[str, Line]) -> None:
    rows = conn.execute(
        select(revisions).where(revisions.c.study_instance_uid.in_(list(found))).order_by(revisions.c.number)
    )
    for row in rows:
        line = found[row.study_instance_uid]
        line.revision, line.revision_at = row.number, row.last_received_at
        line.is_open = line.is_open or row.closed_at is None


def _reports(conn: Connection, found: Mapping[str, Line]) -> None:
    rows = conn.execute(
        select(
            reports.c.study_instance_uid,
            reports.c.revision,
            reports.c.sop_instance_uid,
            reports.c.sop_class_uid,
            reports.c.verdict,
            reports.c.result,
            reports.c.kept,
            reports.c.percentile,
        ).where(reports.c.study_instance_uid.in_(list(found)), ~superseded())
    )
    for row in rows:
        found[row.study_instance_uid].report = _dict(row)
    made = {line.report["sop_instance_uid"]: line for line in found.values() if line.report is not None}
    for row in conn.execute(select(deliveries).where(deliveries.c.sop_instance_uid.in_(list(made)))):
        made[row.sop_instance_uid].deliveries.append(_dict(row))


def _work(conn: Connection, found: Mapping[str, Line]) -> None:
    rows = conn.execute(
        select(
            work_items.c.id,
            work_items.c.kind,
            work_items.c.study_instance_uid,
            work_items.c.revision,
            work_items.c.destination,
            work_items.c.priority,
            work_items.c.state,
            work_items.c.reason,
            work_items.c.bank,
        )
        .where(work_items.c.kind.in_(list(Kind)), work_items.c.study_instance_uid.in_(list(found)))
        .order_by(work_items.c.revision)
    )
    for row in rows:
        line = found[row.study_instance_uid]
        if row.kind == Kind.ANALYSE:
            line.analysis = _dict(row)
        elif line.report is not None and row.kind == Kind.DELIVER and row.revision == line.report["revision"]:
            line.items.append(_dict(row))


def _marks(conn: Connection, found: Mapping[str, Line]) -> None:
    rows = conn.execute(select(marks).where(marks.c.study_instance_uid.in_(list(found))).order_by(marks.c.id))
    for row in rows:
        found[row.study_instance_uid].mark = "" if row.mark == "clear" else row.mark


def _first(conn: Connection, found: Mapping[str, Line]) -> None:
    """Find the image that stands for each study."""
    place = (
        func.row_number()
        .over(
            partition_by=instances.c.study_instance_uid,
            order_by=(
                case((instances.c.kept == "yes", 0), else_=1),
                instances.c.series_instance_uid,
                instances.c.sop_instance_uid,
            ),
        )
        .label("place")
    )
    shown = ("study_instance_uid", "sop_instance_uid", "digest", "kept")
    ordered = (
        select(*(instances.c[name] for name in shown), place)
        .where(instances.c.study_instance_uid.in_(list(found)), instances.c.conflict.is_(False))
        .subquery()
    )
    for row in conn.execute(select(ordered).where(ordered.c.place == 1)):
        found[row.study_instance_uid].first = _dict(row)
    wanted = {uid for line in found.values() if line.report and (uid := decisive(line.report["result"]))}
    rows = conn.execute(
        select(*(instances.c[name] for name in shown)).where(
            instances.c.sop_instance_uid.in_(wanted), instances.c.conflict.is_(False)
        )
    )
    for row in rows:
        if row.study_instance_uid in found:
            found[row.study_instance_uid].first = _dict(row)


def decisive(result: Mapping[str, Any]) -> str:
    """Return the SOP Instance UID of the image that decided, "" where none did."""
    images, index = result.get("images") or (), result.get("decisive")
    return "" if index is None else str(images[index]["sop_instance_uid"])


def first_images(conn: Connection, studies: Sequence[str] | None = None) -> tuple[tuple[str, str], ...]:
    """Return (study, digest) of an image of each study whose file is held, the study that came last first.

    Parameters
    ----------
    studies
        Only of these.
    """
    other = instances.alias()
    held = and_(instances.c.kept == "yes", instances.c.conflict.is_(False))
    earlier = exists().where(
        other.c.study_instance_uid == instances.c.study_instance_uid,
        other.c.kept == "yes",
        other.c.conflict.is_(False),
        other.c.id < instances.c.id,
    )
    query = select(instances.c.study_instance_uid, instances.c.digest).where(held, ~earlier)
    if studies is not None:
        query = query.where(instances.c.study_instance_uid.in_(studies))
    return tuple((row[0], row[1]) for row in conn.execute(query.order_by(instances.c.id.desc())))


def _dict(row: Any) -> Fetched:
    return {str(name): value for name, value in row._mapping.items()}  # noqa: SLF001 - SQLAlchemy's public name
