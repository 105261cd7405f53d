"""What a completed procedure step lists as its output, and where each object can be had: only where that is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from dicom_node.domain.performing import Output
from dicom_node.domain.types import Destination
from dicom_node.store import outputs


@dataclass(frozen=True, slots=True)
class Places:
    """Where objects of this node can be had.

    Attributes
    ----------
    destinations
        By name.
    own
        Address of this node's own DICOMweb, "" where it has none that others reach.
    renamed
        Returns the SOP Instance UID of a report that was sent as another SOP class.
    """

    destinations: Mapping[str, Destination] = field(default_factory=dict)
    own: str = ""
    renamed: Callable[[str, str], str] = lambda sop_instance_uid, _sop_class_uid: sop_instance_uid


def listed(
    conn: Connection, study_instance_uid: str, report_sop_instance_uid: str, places: Places
) -> tuple[Output, ...]:
    """Return a report, in each form that a destination confirmed to have, and what was made beside it.

    What is neither here nor confirmed anywhere is left out.
    """
    found = []
    for made in outputs.of_report(conn, report_sop_instance_uid):
        forms: dict[str, list[str]] = {made.sop_class_uid: []} if made.here else {}
        for destination, sent_as in made.confirmed:
            forms.setdefault(sent_as or made.sop_class_uid, []).append(destination)
        for sop_class, names in forms.items():
            own_form = sop_class == made.sop_class_uid
            uid = made.sop_instance_uid if own_form else places.renamed(made.sop_instance_uid, sop_class)
            path = f"/studies/{study_instance_uid}/series/{made.series_instance_uid}/instances/{uid}"
            titles, roots = _confirmed(names, places.destinations)
            if places.own and made.here and own_form:
                roots = (*roots, places.own)
            urls = tuple(f"{root.rstrip('/')}{path}" for root in roots)
            found.append(Output(study_instance_uid, made.series_instance_uid, sop_class, uid, titles, urls))
    return tuple(found)


def _confirmed(
    names: Sequence[str], destinations: Mapping[str, Destination]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return AE titles and DICOMweb roots of destinations that are still configured."""
    known = [destinations[name] for name in names if name in destinations]
    titles = tuple(one.ae_title for one in known if one.kind == "dicom")
    return titles, tuple(one.url for one in known if one.kind == "stow")
