"""What came of an analysis, and which destination confirmed to have it. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from dicom_node.db.schema import deliveries, objects, reports

CONFIRMED = ("committed", "found")


@dataclass(frozen=True, slots=True)
class Made:
    """A report or display object.

    Attributes
    ----------
    here
        Whether the node holds its bytes still.
    confirmed
        Destination, and the SOP Class it was sent as ("" for its own), of each delivery that was confirmed.
    """

    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    here: bool
    confirmed: tuple[tuple[str, str], ...]


def of_report(conn: Connection, report_sop_instance_uid: str) -> tuple[Made, ...]:
    """Return a report and what was made beside it, in the order in which that was made."""
    made: list[Any] = []
    for table, its in (
        (reports, reports.c.sop_instance_uid == report_sop_instance_uid),
        (objects, objects.c.report_sop_instance_uid == report_sop_instance_uid),
    ):
        made += conn.execute(
            select(table.c.series_instance_uid, table.c.sop_class_uid, table.c.sop_instance_uid, table.c.kept)
            .where(its)
            .order_by(table.c.id)
        ).all()
    places: dict[str, list[tuple[str, str]]] = {}
    for uid, destination, sent_as in conn.execute(
        select(deliveries.c.sop_instance_uid, deliveries.c.destination, deliveries.c.sent_as)
        .where(
            deliveries.c.sop_instance_uid.in_([row.sop_instance_uid for row in made]),
            deliveries.c.confirmed.in_(CONFIRMED),
        )
        .order_by(deliveries.c.destination)
    ):
        places.setdefault(uid, []).append((destination, sent_as))
    return tuple(
        Made(
            row.series_instance_uid,
            row.sop_class_uid,
            row.sop_instance_uid,
            row.kept == "yes",
            tuple(places.get(row.sop_instance_uid, ())),
        )
        for row in made
    )
