"""The DICOM objects of this node's own making that are still held: reports and display objects. Reads only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Select, Table, literal_column, select, union_all

from dicom_node.db.schema import objects, reports
from dicom_node.domain.reading import Held

_COLUMNS = ("study_instance_uid", "series_instance_uid", "sop_class_uid", "sop_instance_uid", "digest")


def held(conn: Connection, studies: Collection[str] | None = None) -> tuple[Held, ...]:
    """Return them by study and series, the reports of a study in the order in which they were made.

    Parameters
    ----------
    studies
        Only of these.
    """

    def of(table: Table, place: int) -> Select[Any]:
        shown = [*(table.c[name] for name in _COLUMNS), literal_column(str(place)).label("place")]
        query = select(*shown, table.c.id.label("n")).where(table.c.kept == "yes")
        return query if studies is None else query.where(table.c.study_instance_uid.in_(list(studies)))

    both = union_all(of(reports, 0), of(objects, 1)).subquery()
    rows = conn.execute(
        select(both).order_by(both.c.study_instance_uid, both.c.series_instance_uid, both.c.place, both.c.n)
    )
    return tuple(
        Held(
            row.study_instance_uid,
            row.series_instance_uid,
            row.sop_class_uid,
            row.sop_instance_uid,
            row.digest,
        )
        for row in rows
    )


def one(conn: Connection, sop_instance_uid: str) -> Held | None:
    """Return one of them; None where there is none, or its bytes are not here any more."""
    for table in (reports, objects):
        row = conn.execute(
            select(*(table.c[name] for name in _COLUMNS)).where(
                table.c.sop_instance_uid == sop_instance_uid, table.c.kept == "yes"
            )
        ).one_or_none()
        if row is not None:
            return Held(*row)
    return None
