"""Rows of table `expected` that modalities' performed steps and archives' notifications are; never commits."""

from __future__ import annotations

from sqlalchemy import Connection, select

from dicom_node.db.schema import expected
from dicom_node.domain.expectation import Notice, Source


def of_instance(conn: Connection, source: Source, sop_instance_uid: str) -> dict[str, Notice]:
    """Return what is known of one SOP instance, by Study Instance UID; it may speak of several studies."""
    rows = conn.execute(
        select(expected)
        .where(
            expected.c.source == source,
            expected.c.key >= f"{sop_instance_uid}/",
            expected.c.key < f"{sop_instance_uid}0",  # "0" is what follows "/"
        )
        .order_by(expected.c.key)
    )
    return {
        row.study_instance_uid: Notice(row.source, row.state, frozenset(row.refs), row.until)
        for row in rows
        if row.key == key_of(sop_instance_uid, row.study_instance_uid)
    }


def key_of(sop_instance_uid: str, study_instance_uid: str) -> str:
    """Return the key of what an instance says of a study."""
    return f"{sop_instance_uid}/{study_instance_uid}"
