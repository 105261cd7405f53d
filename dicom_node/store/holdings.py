"""Which objects of a study are safe here, by SOP Instance UID. Reads instances, reports and objects; never commits."""

from __future__ import annotations

from sqlalchemy import Connection, select

from dicom_node.db.schema import instances, objects, reports


def held(conn: Connection, study_instance_uid: str) -> frozenset[str]:
    """Return the images of a study whose files are here, those in conflict too."""
    found = select(instances.c.sop_instance_uid).where(
        instances.c.study_instance_uid == study_instance_uid, instances.c.kept == "yes"
    )
    return frozenset(conn.execute(found).scalars())


def own(conn: Connection, study_instance_uid: str) -> frozenset[str]:
    """Return what this node made on a study: reports and display objects."""
    made: set[str] = set()
    for table in (reports, objects):
        rows = select(table.c.sop_instance_uid).where(table.c.study_instance_uid == study_instance_uid)
        made.update(conn.execute(rows).scalars())
    return frozenset(made)
