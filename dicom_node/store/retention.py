"""Says which studies' files have had their time, and lets them go. Never commits; the rows stay for ever.

In two steps, so that a death in between loses nothing that is needed: a transaction marks the rows "going"; another
one removes their files while it holds the rows, and marks them "gone". Whoever receives the same image again
changes the same row (`store.instances`), so that a file is never removed under somebody who counts on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, func, or_, select, update

from dicom_node.db import events
from dicom_node.db.schema import heat_maps, instances, marks, objects, reports, revisions, work_items
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.store.files import FileStore, told

PICTURES = "pictures"
"""Folder of the store for pictures drawn of images, which go with them; see `pipeline.pictures`."""

_HELD = ("yes", "lost")


@dataclass(frozen=True, slots=True)
class Over:
    """A study whose images may go: up to which revision, how many, and how many bytes of data sets."""

    study_instance_uid: str
    revision: int
    images: int
    size: int


def held_bytes(conn: Connection) -> int:
    """Return the size of all data sets held."""
    held = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.kept == "yes")
    return int(conn.execute(held).scalar_one())


def over(
    conn: Connection, before: datetime, stays_here: str, study_instance_uid: str | None = None
) -> tuple[Over, ...]:
    """Return the studies to which nothing came since a moment and of which nothing is left to do, oldest first.

    That is: no revision is open; each has a report, and each report was delivered to every destination that it
    was to go to, at least one; no work waits, is being done, or has failed; nobody marked the study normal.

    Parameters
    ----------
    stays_here
        Calling AE title whose reports go nowhere: they need no delivery.
    study_instance_uid
        Look at this study only.
    """
    study = revisions.c.study_instance_uid
    latest = (
        select(
            study,
            func.max(revisions.c.number).label("revision"),
            func.max(revisions.c.last_received_at).label("last"),
        )
        .group_by(study)
        .having(
            func.count() == func.count(revisions.c.closed_at), func.max(revisions.c.last_received_at) < before
        )
    )
    if study_instance_uid is not None:
        latest = latest.where(study == study_instance_uid)
    done = latest.subquery()
    this = done.c.study_instance_uid
    held = and_(instances.c.study_instance_uid == this, instances.c.kept.in_(_HELD))
    delivered = exists().where(
        work_items.c.study_instance_uid == study,
        work_items.c.revision == revisions.c.number,
        work_items.c.kind == Kind.DELIVER,
    )
    any_image = instances.alias()
    from_outside = exists().where(
        any_image.c.study_instance_uid == this, any_image.c.calling_ae_title != stays_here
    )
    rows = conn.execute(
        select(this, done.c.revision, func.count().label("images"), func.sum(instances.c.size).label("size"))
        .join(instances, held)
        .where(
            ~exists().where(study == this, ~_answered()),
            ~_open(this),
            or_(~from_outside, ~exists().where(study == this, ~delivered)),
            ~_marked_normal(this),
        )
        .group_by(this, done.c.revision, done.c.last)
        .order_by(done.c.last, this)
    )
    return tuple(Over(row[0], row[1], row.images, int(row.size)) for row in rows)


def reports_over(conn: Connection, before: datetime) -> tuple[str, ...]:
    """Return the SOP Instance UIDs of the reports made before a moment to studies whose images are gone."""
    this = reports.c.study_instance_uid
    rows = conn.execute(
        select(reports.c.sop_instance_uid).where(
            reports.c.kept == "yes",
            reports.c.created_at < before,
            ~exists().where(instances.c.study_instance_uid == this, instances.c.kept != "gone"),
            ~_open(this),
        )
    )
    return tuple(rows.scalars())


def let_images_go(conn: Connection, gone: Over, why: str, at: datetime) -> None:
    """Mark the images of a study as going, and what was made to show them, those of later revisions excepted."""
    conn.execute(
        update(instances)
        .where(
            instances.c.study_instance_uid == gone.study_instance_uid,
            instances.c.revision <= gone.revision,
            instances.c.kept.in_(_HELD),
        )
        .values(kept="going")
    )
    conn.execute(
        update(objects)
        .where(
            objects.c.study_instance_uid == gone.study_instance_uid,
            objects.c.revision <= gone.revision,
            objects.c.kept == "yes",
        )
        .values(kept="going")
    )
    conn.execute(
        delete(heat_maps).where(
            heat_maps.c.study_instance_uid == gone.study_instance_uid, heat_maps.c.revision <= gone.revision
        )
    )
    events.record(
        conn,
        at,
        "study.pruned",
        study_instance_uid=gone.study_instance_uid,
        revision=gone.revision,
        images=gone.images,
        bytes=gone.size,
        why=why,
    )


def let_report_go(conn: Connection, sop_instance_uid: str, at: datetime) -> None:
    """Mark a report's bytes as going; its row stays, so that it is known as this node's own."""
    study = conn.execute(
        update(reports)
        .where(reports.c.sop_instance_uid == sop_instance_uid, reports.c.kept == "yes")
        .values(kept="going")
        .returning(reports.c.study_instance_uid)
    ).scalar_one_or_none()
    if study is not None:
        events.record(conn, at, "report.pruned", study_instance_uid=study, sop_instance_uid=sop_instance_uid)


def let_left_over_go(conn: Connection, digest: str) -> None:
    """Mark rows as going once more whose file is still there, or there again, after its removal."""
    for table in (instances, reports, objects):
        conn.execute(update(table).where(table.c.digest == digest, table.c.kept == "gone").values(kept="going"))


def remove_going(conn: Connection, files: FileStore, limit: int) -> int:
    """Remove the files of some of the rows that are going; return how many rows that were, 0 at the end.

    A file that another row still needs stays. A file is gone for good, and this is durable, before its row says so.

    Raises
    ------
    StoreError
        If the file system fails; nothing is marked then.
    """
    removed = 0
    places = ((instances, files.instance_path), (reports, files.report_path), (objects, files.report_path))
    for table, path in places:
        rows = conn.execute(
            select(table.c.id, table.c.digest).where(table.c.kept == "going").limit(limit).with_for_update()
        ).all()
        needed = _needed(conn, table, [row.digest for row in rows])
        gone = [path(row.digest) for row in rows if row.digest not in needed]
        with told("a file whose time is over cannot be removed"):
            for file in gone:
                file.unlink(missing_ok=True)
                for drawn in (files.root / PICTURES / file.stem[:2]).glob(f"{file.stem}.*"):
                    drawn.unlink(missing_ok=True)
            for folder in {file.parent for file in gone if file.parent.is_dir()}:
                files.sync(folder)
        conn.execute(update(table).where(table.c.id.in_([row.id for row in rows])).values(kept="gone"))
        removed += len(rows)
    return removed


def _needed(conn: Connection, table: Table, digests: Sequence[str]) -> set[str]:
    kept = select(table.c.digest).where(table.c.digest.in_(digests), table.c.kept.in_(_HELD))
    return set(conn.execute(kept).scalars())


def _answered() -> ColumnElement[bool]:
    return exists().where(
        reports.c.study_instance_uid == revisions.c.study_instance_uid, reports.c.revision == revisions.c.number
    )


def _open(study: ColumnElement[str]) -> ColumnElement[bool]:
    """Work that is not completed; an analysis that was canceled after its report was made is no work any more."""
    superseded = and_(work_items.c.kind == Kind.ANALYSE, work_items.c.state == State.CANCELED)
    return exists().where(
        work_items.c.study_instance_uid == study, work_items.c.state != State.COMPLETED, ~superseded
    )


def _marked_normal(study: ColumnElement[str]) -> ColumnElement[bool]:
    later = marks.alias()
    return exists().where(
        marks.c.study_instance_uid == study,
        marks.c.mark == "normal",
        ~exists().where(later.c.study_instance_uid == marks.c.study_instance_uid, later.c.id > marks.c.id),
    )
