"""Keeps the heat maps that were drawn when images were scored. Owns their table; never commits.

One is a few kilobytes and stands in its row, so that it is there exactly when the report is.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, exists, select

from dicom_node.db.dialect import insert
from dicom_node.db.schema import heat_maps, reports

LARGEST = 1_000_000
"""Bytes."""


def put(
    conn: Connection, study_instance_uid: str, sop_instance_uid: str, revision: int, png: bytes, at: datetime
) -> None:
    """Keep an image's heat map of a revision's analysis; a later one of the same takes its place."""
    row = {
        "study_instance_uid": study_instance_uid,
        "sop_instance_uid": sop_instance_uid,
        "revision": revision,
        "png": png,
        "created_at": at,
    }
    statement = insert(conn, heat_maps).values(**row)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["sop_instance_uid", "revision"], set_={"png": png, "created_at": at}
        )
    )


def newest(conn: Connection, sop_instance_uid: str) -> bytes | None:
    """Return an image's heat map beside the study's newest report; None where none was drawn for that."""
    found = conn.execute(
        select(heat_maps.c.png)
        .where(heat_maps.c.sop_instance_uid == sop_instance_uid, ~_superseded())
        .order_by(heat_maps.c.revision.desc())
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else bytes(found)


def among(conn: Connection, sop_instance_uids: Collection[str]) -> frozenset[str]:
    """Return of which of some images there is one beside the newest report."""
    query = select(heat_maps.c.sop_instance_uid).where(
        heat_maps.c.sop_instance_uid.in_(list(sop_instance_uids)), ~_superseded()
    )
    return frozenset(conn.execute(query.distinct()).scalars())


def _superseded() -> ColumnElement[bool]:
    """Say whether there is a later report: a map of an earlier one must not lie over what that says."""
    return exists().where(
        reports.c.study_instance_uid == heat_maps.c.study_instance_uid,
        reports.c.revision > heat_maps.c.revision,
    )
