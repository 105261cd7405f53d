"""What goes out with a report: objects that a destination may decline without harm to it. Pure but for its log."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.types import Delivery, Destination

log = logging.getLogger(__name__)

_PROCESSING_FAILURE = 0x0110


def with_objects(
    destination: Destination, report: Delivery, answers: Iterable[tuple[Dataset, int | None]]
) -> Delivery:
    """Return the delivery of a report with those of its objects in `also`, and in its comment which were declined.

    Parameters
    ----------
    answers
        Each object and the status that answered it; None where its SOP class was not accepted.

    Raises
    ------
    DestinationAwayError
        If the destination has no room for one: it may have later. A processing failure counts as declined, since the
        report has just been processed.
    """
    also, declined = [], []
    for one, status in answers:
        uid, kind = str(one.SOPInstanceUID), UID(str(one.SOPClassUID)).name
        why = "not accepted"
        if status is not None:
            meaning, told = judge_status(status)
            why = f"0x{status:04X} ({told})"
            if meaning is Meaning.STORED:
                also.append(Delivery(destination.name, uid, status, told if status else ""))
                continue
            if meaning is Meaning.AWAY and status != _PROCESSING_FAILURE:
                raise DestinationAwayError(
                    f"{destination.name} answered {why} to a display object of the report; it must have room for it"
                )
        log.warning(
            "a destination does not take a display object",
            extra={"destination": destination.name, "what": kind, "reason": why},
        )
        declined.append(f"{kind} {why}")
    said = [report.comment, f"without {', '.join(dict.fromkeys(declined))}" if declined else ""]
    return replace(report, comment="; ".join(part for part in said if part), also=tuple(also))
