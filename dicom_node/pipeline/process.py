"""Analyses one revision: its images -> a result -> a report on the disk -> rows and deliveries.

What is slow happens before the transaction; `Prepared.commit` only writes rows, in the transaction that
acknowledges the work item, so that a report exists exactly when its analysis is COMPLETED.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import NotFoundError, StoreError
from dicom_node.domain.types import (
    Done,
    ImageResult,
    Instance,
    Kind,
    Outcome,
    Refusal,
    Refuse,
    StudyResult,
    Verdict,
    WorkItem,
)
from dicom_node.pipeline.ingest import READ_ERRORS
from dicom_node.pipeline.verdict import UNDECODABLE, conclude
from dicom_node.queue import items
from dicom_node.report import sr
from dicom_node.store import instances, reports, studies
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

SELFTEST_AE_TITLE = "DICOM-SELFTEST"
"""Studies from this AE title are answered like any other but their reports stay in the node."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a handler did: the outcome, and the rows that belong to it.

    `counted` is False for a Retry whose cause is this machine's and may pass, such as a full disk: it uses up
    none of the item's attempts.
    """

    outcome: Outcome
    commit: Callable[[Connection], None]
    counted: bool = True


class Analyse:
    """Handler of ANALYSE work items.

    Parameters
    ----------
    analyse
        Scores one image or says why not; the only thing here that knows a bank.
    destinations
        Names of the destinations that get every report.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        analyse: Callable[[Dataset], ImageResult],
        equipment: sr.Equipment,
        destinations: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._files = files
        self._analyse = analyse
        self._equipment = equipment
        self._destinations = tuple(destinations)
        self._clock = clock

    def __call__(self, item: WorkItem) -> Prepared:
        """Score the revision and prepare its report."""
        held, closed_at = self._revision(item)
        if held:
            looked_at = [self._image(instance) for instance in held]
        else:
            held = self._conflicting(item)
            looked_at = [(_header(instance), _refused(instance, _CONFLICT)) for instance in held]
        headers, images = zip(*looked_at, strict=True)
        result = conclude(item.study_instance_uid, item.revision, images)
        return self._prepare(item, result, held, headers, closed_at, Done(result.verdict.value))

    def give_up(self, item: WorkItem, reason: str) -> Prepared:
        """Prepare a *failed* report: the study gets an answer although its analysis never ended."""
        held, closed_at = self._revision(item)
        held = held or self._conflicting(item)
        images = tuple(_refused(instance, Refusal("failed", reason)) for instance in held)
        result = StudyResult(item.study_instance_uid, item.revision, Verdict.FAILED, images, reason=reason)
        headers = [_header(instance) for instance in held]
        return self._prepare(item, result, held, headers, closed_at, Refuse(reason))

    def _revision(self, item: WorkItem) -> tuple[tuple[Instance, ...], datetime]:
        with reading(self._engine) as conn:
            held = instances.of_revision(conn, self._files, item.study_instance_uid, item.revision)
            closed_at = studies.revision_closed_at(conn, item.study_instance_uid, item.revision)
        if closed_at is None:
            raise NotFoundError(f"revision {item.revision} of study {item.study_instance_uid} is still open")
        return held, closed_at

    def _conflicting(self, item: WorkItem) -> tuple[Instance, ...]:
        """Return the images of a study of which every one came under a SOP Instance UID already taken."""
        with reading(self._engine) as conn:
            held = instances.of_revision(
                conn, self._files, item.study_instance_uid, item.revision, conflicts=True
            )
        if not held:
            raise NotFoundError(
                f"revision {item.revision} of study {item.study_instance_uid} has no image any more"
            )
        return held

    def _image(self, instance: Instance) -> tuple[Dataset, ImageResult]:
        # Read apart and left untouched: looking at an element decodes it, and a report copies raw bytes.
        header = _header(instance)
        try:
            self._files.check_instance(instance.digest)
        except StoreError as error:
            raise StoreError(f"image {instance.sop_instance_uid}: {error}") from error
        try:
            dataset = dcmread(instance.path)
        except (MemoryError, OSError):
            raise  # it may pass, and is no property of the image
        except READ_ERRORS as error:
            reason = f"the stored data set cannot be read ({type(error).__name__})"
            return header, _refused(instance, Refusal(UNDECODABLE, reason))
        try:
            return header, self._analyse(dataset)
        except BytesLengthException:
            reason = "an element that the score needs has not the length that its VR asks for"
            return header, _refused(instance, Refusal(UNDECODABLE, reason))

    def _prepare(
        self,
        item: WorkItem,
        result: StudyResult,
        held: Sequence[Instance],
        headers: Sequence[Dataset],
        closed_at: datetime,
        outcome: Outcome,
    ) -> Prepared:
        with reading(self._engine) as conn:
            earlier = reports.of_study(conn, item.study_instance_uid, before_revision=item.revision)
        report = sr.build(result, headers, self._equipment, closed_at, predecessors=earlier)
        digest = self._files.put_report(report.content)
        bank_hash = result.provenance.bank_hash if result.provenance else ""
        selftest = all(i.calling_ae_title == SELFTEST_AE_TITLE for i in held)

        def commit(conn: Connection) -> None:
            now = self._clock()
            reports.add(
                conn,
                report,
                digest=digest,
                revision=item.revision,
                bank_hash=bank_hash,
                verdict=result.verdict,
                result=asdict(result),
                at=now,
            )
            for name in () if selftest else self._destinations:
                items.schedule(
                    conn,
                    Kind.DELIVER,
                    item.study_instance_uid,
                    item.revision,
                    now,
                    destination=name,
                    priority=item.priority,
                )

        log.info("study answered", extra={"verdict": result.verdict.value, "images": len(result.images)})
        return Prepared(outcome, commit)


_CONFLICT = Refusal(
    "conflict",
    "another image with this SOP Instance UID was already held; the sender should give each image its own",
)


def _refused(instance: Instance, refusal: Refusal) -> ImageResult:
    return ImageResult(
        instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid, refusal=refusal
    )


def _header(instance: Instance) -> Dataset:
    try:
        return dcmread(instance.path, stop_before_pixels=True)
    except READ_ERRORS:
        return Dataset()
