"""Keeps account of the images held. Owns the table `instances`; never commits and touches no file.

An image that comes again with the same bytes changes nothing. One that comes with other bytes under a SOP
Instance UID already held is a conflict: its row is kept, marked, and belongs to no score. A conflict does not
disturb its study: it is filed under the study's newest revision, open or closed, and neither reopens nor delays
it, because the images of that revision are the same as without it. Only where its study is unknown here (the
other bytes name another study) it opens revision 1, so that this study, too, gets its answer.

The row of an image outlives its file. An image whose file was removed when its time was over, and that comes
again, is held again and was answered before; one whose file was lost counts as new, in a new revision, also where it
comes in other bytes than those that were lost.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert
from dicom_node.db.schema import instances
from dicom_node.domain.errors import DatabaseError
from dicom_node.domain.types import Ingested, Instance, Received
from dicom_node.store import studies
from dicom_node.store.files import FileStore


def add(
    conn: Connection,
    received: Received,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    digest: str,
    size: int,
    at: datetime,
) -> Ingested:
    """Account for one received image whose file is already in the store.

    Any number of associations may add the same image at the same time: one is NEW, the others DUPLICATE. In
    every case the association counts as seen.

    Parameters
    ----------
    conn
        An open transaction that may write.
    received
        What came in; its `path` is not looked at.
    study_instance_uid, series_instance_uid
        As its data set says.
    digest, size
        SHA-256 (hex) and length in bytes of its data set.
    at
        The moment from which the study's quiet time counts.

    Returns
    -------
    Ingested
        NEW, DUPLICATE, or CONFLICT (also each further time that the same conflicting bytes come, without
        another row or event).
    """
    studies.association_seen(
        conn,
        received.association_id,
        at,
        calling_ae_title=received.calling_ae_title,
        called_ae_title=received.called_ae_title,
        peer_address=received.peer_address,
    )
    row = {
        "sop_instance_uid": received.sop_instance_uid,
        "sop_class_uid": received.sop_class_uid,
        "series_instance_uid": series_instance_uid,
        "study_instance_uid": study_instance_uid,
        "transfer_syntax_uid": received.transfer_syntax_uid,
        "digest": digest,
        "size": size,
        "association_id": received.association_id,
        "calling_ae_title": received.calling_ae_title,
        "received_at": received.received_at,
    }
    known = _known(conn, received.sop_instance_uid)
    lost = [r.id for r in known.values() if r.kept == "lost" and r.study_instance_uid == study_instance_uid]
    if digest not in known and (lost or not known):
        savepoint = conn.begin_nested()
        number = studies.open_revision(conn, study_instance_uid, at)
        _give_way(conn, lost)
        if _insert(conn, {**row, "revision": number, "conflict": False}, at):
            savepoint.commit()
            return Ingested.NEW
        savepoint.rollback()  # another association was faster: what this one did to the revision is undone
        known = _known(conn, received.sop_instance_uid)
        if not known:
            raise DatabaseError(
                f"instance {received.sop_instance_uid} was neither here nor could be added; "
                "the database must run at READ COMMITTED"
            )
    if digest in known:
        if known[digest].kept != "yes" and _hold_again(conn, row, known[digest], at):
            return Ingested.NEW
        return Ingested.CONFLICT if known[digest].conflict else Ingested.DUPLICATE
    latest = studies.latest_revision(conn, study_instance_uid)
    if latest is None:
        latest = studies.open_revision(conn, study_instance_uid, at)
    _insert(conn, {**row, "revision": latest, "conflict": True}, at)
    return Ingested.CONFLICT


def of_revision(
    conn: Connection, files: FileStore, study_instance_uid: str, number: int, *, conflicts: bool = False
) -> tuple[Instance, ...]:
    """Return the images of a revision, ordered by Series and SOP Instance UID and not by arrival.

    Parameters
    ----------
    conn, files
        Where rows and bytes are.
    study_instance_uid, number
        The revision. It holds the images of the earlier ones, too, except those whose time was over.
    conflicts
        Return the conflicting images that were kept apart, instead. A study may consist of nothing else.
    """
    rows = conn.execute(
        select(instances)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.revision <= number,
            instances.c.conflict.is_(conflicts),
            instances.c.kept.in_(["yes", "lost"]),
        )
        .order_by(instances.c.series_instance_uid, instances.c.sop_instance_uid, instances.c.digest)
    )
    return tuple(
        Instance(
            sop_instance_uid=row.sop_instance_uid,
            sop_class_uid=row.sop_class_uid,
            series_instance_uid=row.series_instance_uid,
            study_instance_uid=row.study_instance_uid,
            transfer_syntax_uid=row.transfer_syntax_uid,
            digest=row.digest,
            path=files.instance_path(row.digest),
            calling_ae_title=row.calling_ae_title,
            revision=row.revision,
            lost=row.kept == "lost",
        )
        for row in rows
    )


def lose(conn: Connection, digest: str, why: str, at: datetime) -> bool:
    """Note that an image's file is lost; False, and nothing is changed, if it was not held (any more).

    Its revision, where it is not answered yet, is answered without it, and says so.
    """
    row = conn.execute(
        update(instances)
        .where(instances.c.digest == digest, instances.c.kept == "yes")
        .values(kept="lost")
        .returning(instances.c.study_instance_uid, instances.c.sop_instance_uid)
    ).one_or_none()
    if row is not None:
        events.record(
            conn,
            at,
            "instance.lost",
            study_instance_uid=row.study_instance_uid,
            sop_instance_uid=row.sop_instance_uid,
            digest=digest,
            why=why,
        )
    return row is not None


def any_held(conn: Connection, study_instance_uid: str) -> bool:
    """Return whether any image of a study is still held, be it lost or in conflict."""
    held = select(instances.c.id).where(
        instances.c.study_instance_uid == study_instance_uid, instances.c.kept.in_(["yes", "lost"])
    )
    return conn.execute(held.limit(1)).first() is not None


def kept(conn: Connection, study_instance_uid: str) -> dict[str, int]:
    """Return how many images of a study there are of each `kept`, those in conflict left out."""
    rows = conn.execute(
        select(instances.c.kept, func.count())
        .where(instances.c.study_instance_uid == study_instance_uid, instances.c.conflict.is_(False))
        .group_by(instances.c.kept)
    )
    return {row[0]: int(row[1]) for row in rows}


def held_digests(conn: Connection, digests: Collection[str]) -> set[str]:
    """Return which of some digests are those of images whose files are held."""
    found = select(instances.c.digest).where(instances.c.digest.in_(list(digests)), instances.c.kept == "yes")
    return set(conn.execute(found).scalars())


def newest(conn: Connection, after: int, limit: int) -> list[tuple[int, str]]:
    """Return number and digest of the newest images that are held, of those after some number; the oldest first."""
    rows = conn.execute(
        select(instances.c.id, instances.c.digest)
        .where(instances.c.id > after, instances.c.kept == "yes", instances.c.conflict.is_(False))
        .order_by(instances.c.id.desc())
        .limit(limit)
    ).all()
    return [(row.id, row.digest) for row in reversed(rows)]


def _known(conn: Connection, sop_instance_uid: str) -> dict[str, Any]:
    """Return the rows held under a SOP Instance UID by their digest."""
    rows = conn.execute(
        select(
            instances.c.id,
            instances.c.digest,
            instances.c.conflict,
            instances.c.kept,
            instances.c.study_instance_uid,
        ).where(instances.c.sop_instance_uid == sop_instance_uid)
    )
    return {row.digest: row for row in rows}


def _give_way(conn: Connection, lost: Collection[int]) -> None:
    """Let lost bytes count no more: others came for the image, which are the only ones that can be scored."""
    conn.execute(
        update(instances).where(instances.c.id.in_(lost), instances.c.kept == "lost").values(conflict=True)
    )


def _hold_again(conn: Connection, row: dict[str, object], known: Any, at: datetime) -> bool:
    """Account for a file that is here again; return whether its image has to be answered again.

    Whoever removes files does so under the same lock on the row: the caller's file is safe from here on.
    """
    study = str(row["study_instance_uid"])
    values: dict[str, object] = {"kept": "yes"}
    answer = known.kept == "lost" and not known.conflict
    if answer:
        values["revision"] = studies.open_revision(conn, study, at)
    else:
        studies.came_again(conn, study, at)
    conn.execute(update(instances).where(instances.c.id == known.id).values(values))
    events.record(
        conn,
        at,
        "instance.again",
        study_instance_uid=study,
        sop_instance_uid=row["sop_instance_uid"],
        digest=row["digest"],
        before=known.kept,
    )
    return answer


def _insert(conn: Connection, row: dict[str, object], at: datetime) -> bool:
    added = conn.execute(
        insert(conn, instances).values(row).on_conflict_do_nothing().returning(instances.c.id)
    ).scalar_one_or_none()
    if added is None:
        return False
    events.record(
        conn,
        at,
        "instance.conflict" if row["conflict"] else "instance.stored",
        study_instance_uid=str(row["study_instance_uid"]),
        sop_instance_uid=row["sop_instance_uid"],
        digest=row["digest"],
        revision=row["revision"],
        calling_ae_title=row["calling_ae_title"],
        association_id=row["association_id"],
    )
    return True
