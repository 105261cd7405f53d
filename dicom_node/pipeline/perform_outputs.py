"""What a completed procedure step lists as its output, and where it can be had. Knows nothing of how it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.performing import Output
from dicom_node.domain.types import Destination
from dicom_node.store import tasks
from dicom_node.store.reports import StoredReport


def outputs(
    engine: Engine,
    report: StoredReport,
    sent: Sequence[tasks.Sent],
    destinations: Mapping[str, Destination],
    renamed: Callable[[str, str], str],
) -> tuple[Output, ...]:
    """Return the report, in each form that it was sent in, and what was sent beside it.

    Parameters
    ----------
    renamed
        Returns the SOP Instance UID of a report that was sent as another SOP class.
    """
    places: dict[tuple[str, str, str], list[str]] = {}
    for one in sent:
        destination = destinations.get(one.destination)
        if not one.stored or destination is None or destination.kind == "hl7":
            continue
        form, uid = report.sop_class_uid, report.sop_instance_uid
        if one.sent_as and one.sent_as != form:
            form, uid = one.sent_as, renamed(uid, one.sent_as)
        places.setdefault((report.series_instance_uid, form, uid), []).append(one.destination)
    if not places:
        places[report.series_instance_uid, report.sop_class_uid, report.sop_instance_uid] = []
    with reading(engine) as conn:
        for series, sop_class, uid, name in tasks.objects_sent(conn, report.sop_instance_uid):
            places.setdefault((series, sop_class, uid), []).append(name)
    return tuple(
        Output(report.study_instance_uid, series, sop_class, uid, *_places(names, destinations))
        for (series, sop_class, uid), names in places.items()
    )


def _places(
    names: Sequence[str], destinations: Mapping[str, Destination]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    known = [destinations[name] for name in names if name in destinations]
    titles = tuple(one.ae_title for one in known if one.kind == "dicom")
    return titles, tuple(one.url for one in known if one.kind == "stow")
