"""Makes the display objects that the destinations of a report want, and keeps them beside it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import Dataset
from sqlalchemy import Connection

from dicom_node.domain.errors import ReportError
from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import Instance, Report, StudyResult
from dicom_node.report import objects as display
from dicom_node.report.display import Source
from dicom_node.report.document import Equipment
from dicom_node.store import objects
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

# What pydicom and highdicom raise where an attribute of an image surprises them; they share no base class.
_BUILD_ERRORS = (ReportError, ValueError, TypeError, AttributeError, KeyError, OverflowError)


@dataclass(frozen=True, slots=True)
class Shown:
    """An object whose bytes are in the store; `one` has no content any more."""

    kind: str
    one: Report
    digest: str


def make(
    files: FileStore,
    kinds: Collection[str],
    report: Report,
    result: StudyResult,
    held: Sequence[Instance],
    headers: Sequence[Dataset],
    explanations: Mapping[str, Explanation],
    equipment: Equipment,
    at: datetime,
) -> list[Shown]:
    """Build the objects of some kinds and put them into the store. One that cannot be built is left out, and told of.

    Parameters
    ----------
    held, headers
        The images of `result`, in the same order.
    explanations
        By SOP Instance UID of the image.
    at
        When the analysis was made.

    Raises
    ------
    OutOfResourcesError, StoreError
        If the store cannot take them.
    """
    sources = [
        Source(header, i.series_instance_uid, i.sop_class_uid, i.sop_instance_uid)
        for i, header in zip(held, headers, strict=True)
    ]
    shown = []
    for kind in sorted(kinds):
        try:
            made = list(display.build({kind}, report, result, sources, explanations, equipment, at))
        except _BUILD_ERRORS as error:
            # Without the message: a library's may quote the value of an element.
            log.warning("a display object cannot be made", extra={"what": kind, "error": type(error).__name__})
            continue
        shown += [Shown(kind, _without_content(one), files.put_report(one.content)) for _, one in made]
    return shown


def record(conn: Connection, shown: Sequence[Shown], report: Report, revision: int, at: datetime) -> None:
    """Account for objects, in the transaction that accounts for their report."""
    for each in shown:
        objects.add(
            conn,
            each.one,
            kind=each.kind,
            digest=each.digest,
            revision=revision,
            report_sop_instance_uid=report.sop_instance_uid,
            at=at,
        )


def _without_content(one: Report) -> Report:
    return Report(one.sop_class_uid, one.sop_instance_uid, one.series_instance_uid, one.study_instance_uid, b"")
