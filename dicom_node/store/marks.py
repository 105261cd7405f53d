"""Keeps what people say of a study: normal, abnormal, or neither any more. Owns table `marks`; never commits.

Append-only: a mark is taken back by a later one. Whether a word is right is not for this room to judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, func, select

from dicom_node.db import events, schema
from dicom_node.db.dialect import storable
from dicom_node.domain.errors import NotFoundError
from dicom_node.store import studies

Mark = Literal["normal", "abnormal", "clear"]


@dataclass(frozen=True, slots=True)
class Marked:
    """One word of one person about a study."""

    study_instance_uid: str
    mark: Mark
    by: str
    at: datetime


def add(conn: Connection, study_instance_uid: str, mark: Mark, by: str, at: datetime) -> None:
    """Note a person's word about a study; "clear" takes the words before it back.

    Parameters
    ----------
    by
        Who says so, for the record.

    Raises
    ------
    NotFoundError
        If no image of that study was ever received.
    """
    if studies.latest_revision(conn, study_instance_uid) is None:
        raise NotFoundError(f"no image of study {study_instance_uid} was ever received; nothing to mark")
    who = storable(by, 64)
    conn.execute(
        schema.marks.insert().values(study_instance_uid=study_instance_uid, mark=mark, said_by=who, at=at)
    )
    events.record(conn, at, "study.marked", study_instance_uid=study_instance_uid, mark=mark, by=who)


def history(conn: Connection, study_instance_uid: str) -> tuple[Marked, ...]:
    """Return every word about a study, the latest last."""
    marks = schema.marks
    rows = conn.execute(
        select(marks).where(marks.c.study_instance_uid == study_instance_uid).order_by(marks.c.id)
    )
    return tuple(Marked(row.study_instance_uid, row.mark, row.said_by, row.at) for row in rows)


def studies_marked(conn: Connection, mark: Mark) -> tuple[str, ...]:
    """Return the studies whose latest word is `mark`, sorted by Study Instance UID."""
    marks = schema.marks
    latest = select(func.max(marks.c.id)).group_by(marks.c.study_instance_uid)
    rows = conn.execute(
        select(marks.c.study_instance_uid)
        .where(marks.c.id.in_(latest), marks.c.mark == mark)
        .order_by(marks.c.study_instance_uid)
    )
    return tuple(rows.scalars())
