"""Keeps account of the images held. Owns the table `instances`; never commits and touches no file.

An image that comes again with the same bytes changes nothing. One that comes with other bytes under a SOP
Instance UID already held is a conflict: its row is kept, marked, and belongs to no score. A conflict does not
disturb its study: it is filed under the study's newest revision, open or closed, and neither reopens nor delays
it, because the images of that revision are the same as without it. Only where its study is unknown here (the
other bytes name another study) it opens revision 1, so that this study, too, gets its answer.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

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
    if not known:
        savepoint = conn.begin_nested()
        number = studies.open_revision(conn, study_instance_uid, at)
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
        return Ingested.CONFLICT if known[digest] else Ingested.DUPLICATE
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
        The revision. It holds the images of the earlier ones, too.
    conflicts
        Return the conflicting images that were kept apart, instead. A study may consist of nothing else.
    """
    rows = conn.execute(
        select(instances)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.revision <= number,
            instances.c.conflict.is_(conflicts),
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
        )
        for row in rows
    )


def _known(conn: Connection, sop_instance_uid: str) -> dict[str, bool]:
    """Return the digests held under a SOP Instance UID, each with whether it is a conflict."""
    rows = conn.execute(
        select(instances.c.digest, instances.c.conflict).where(instances.c.sop_instance_uid == sop_instance_uid)
    )
    return {row.digest: row.conflict for row in rows}


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
