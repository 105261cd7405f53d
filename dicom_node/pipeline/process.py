"""Analyses one revision: its images -> a result -> a report on the disk -> rows and deliveries.

What is slow happens before the transaction; `Prepared.commit` only writes rows, in the transaction that
acknowledges the work item, so that a report exists exactly when its analysis is COMPLETED.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import CannotUnderstandError, NotFoundError, PoisonError, StoreError
from dicom_node.domain.examined import Examined
from dicom_node.domain.explanation import Explanation
from dicom_node.domain.ids import SELFTEST_AE_TITLE as SELFTEST_AE_TITLE
from dicom_node.domain.routing import Route
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
from dicom_node.pipeline import routing, showing
from dicom_node.pipeline.headers import read_header
from dicom_node.pipeline.verdict import LOST, POISON, conclude
from dicom_node.queue import items
from dicom_node.report import sr
from dicom_node.report.presentation import SHOWN_BY
from dicom_node.store import heat_maps, instances, reports, studies
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a handler did: the outcome, and the rows that belong to it.

    `counted` is False for a Retry whose cause is this machine's and may pass, such as a full disk: it uses up
    none of the item's attempts. `again_in` is when to try again, in seconds, where that is not left to the backoff.
    `waits` is True for a Retry to which nothing went wrong: it waits for somebody's answer.
    """

    outcome: Outcome
    commit: Callable[[Connection], None]
    counted: bool = True
    again_in: float | None = None
    waits: bool = False


class Analyse:
    """Handler of ANALYSE work items.

    Parameters
    ----------
    analyse
        Scores one stored file, with the bank of that name or with what is active (""), or says why not; the only
        thing here that knows a bank. Its result needs no UIDs.
    destinations
        Names of the destinations.
    attempts
        How many an analysis has.
    objects
        Kinds of display objects that a destination wants beside reports, by its name.
    routes
        Which reports a destination gets, by its name; one without a route gets all.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        analyse: Callable[[Path, str], Examined],
        equipment: sr.Equipment,
        destinations: Sequence[str],
        clock: Callable[[], datetime],
        attempts: int = 3,
        objects: Mapping[str, Collection[str]] | None = None,
        routes: Mapping[str, Route] | None = None,
    ) -> None:
        self._engine = engine
        self._files = files
        self._analyse = analyse
        self._equipment = equipment
        self._destinations = tuple(destinations)
        self._clock = clock
        self._attempts = attempts
        self._objects = objects or {}
        self._routes = routes or {}

    def __call__(self, item: WorkItem) -> Prepared:
        """Score the revision and prepare its report.

        An image that ends, starves or holds up its scoring process fails the attempt; in the last one it alone is
        refused, and the others are scored.
        """
        held, closed_at = self._revision(item)
        if held:
            last = item.attempts >= self._attempts
            looked_at = [self._image(instance, item.bank, last=last) for instance in held]
        else:
            held = self._conflicting(item)
            looked_at = [(self._whole_header(i), Examined(_refused(i, _CONFLICT))) for i in held]
        headers, examined = zip(*looked_at, strict=True)
        images = [one.result for one in examined]
        result = conclude(item.study_instance_uid, item.revision, images)
        poisoned = any(image.refusal is not None and image.refusal.code == POISON for image in images)
        outcome: Outcome = Done(result.verdict.value)
        if poisoned and result.verdict is Verdict.FAILED:
            outcome = Refuse(f"gave up after {item.attempts} attempts: {result.reason}")
        explained = {one.explanation.sop_instance_uid: one.explanation for one in examined if one.explanation}
        return self._prepare(item, result, held, headers, closed_at, outcome, explained)

    def give_up(self, item: WorkItem, reason: str) -> Prepared:
        """Prepare a *failed* report: the study gets an answer although its analysis never ended."""
        held, closed_at = self._revision(item)
        held = held or self._conflicting(item)
        images = tuple(_refused(instance, Refusal("failed", reason)) for instance in held)
        result = StudyResult(item.study_instance_uid, item.revision, Verdict.FAILED, images, reason=reason)
        headers = [self._whole_header(instance) for instance in held]
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

    def _whole_header(self, instance: Instance) -> Dataset:
        """Return a header as received; of a damaged file, which may name another patient, only what routes ask."""
        header = _header(instance)
        try:
            self._files.check_instance(instance.digest)
        except StoreError:
            asked = [tag for tag in map(Tag, routing.ASKED) if tag in header]
            return Dataset({tag: header.get_item(tag) for tag in asked})
        return header

    def _image(self, instance: Instance, bank: str, *, last: bool) -> tuple[Dataset, Examined]:
        # Read apart and left untouched: looking at an element decodes it, and a report copies raw bytes.
        header = _header(instance)
        if instance.lost:
            return header, Examined(_refused(instance, _LOST))
        try:
            self._files.check_instance(instance.digest)
        except StoreError as error:
            raise StoreError(f"image {instance.sop_instance_uid}: {error}") from error
        try:
            examined = self._analyse(instance.path, bank)
        except PoisonError as error:
            told = f"image {instance.sop_instance_uid}: {error}"
            if not last:
                raise PoisonError(told) from error
            log.warning("an image is given up", extra={"reason": told})
            return header, Examined(_refused(instance, Refusal(POISON, told)))
        # A data set may name itself once more, behind its pixels; what was received says which image this is.
        where = examined.explanation
        result = replace(
            examined.result,
            sop_class_uid=instance.sop_class_uid,
            sop_instance_uid=instance.sop_instance_uid,
            series_instance_uid=instance.series_instance_uid,
            region=where.region if where else None,
        )
        return header, Examined(
            result, replace(where, sop_instance_uid=instance.sop_instance_uid) if where else None
        )

    def _prepare(
        self,
        item: WorkItem,
        result: StudyResult,
        held: Sequence[Instance],
        headers: Sequence[Dataset],
        closed_at: datetime,
        outcome: Outcome,
        explained: Mapping[str, Explanation] | None = None,
    ) -> Prepared:
        with reading(self._engine) as conn:
            earlier = reports.of_study(conn, item.study_instance_uid, before_revision=item.revision)
            before = items.destinations_before(conn, item.study_instance_uid, item.revision)
            procedure = studies.procedure_of(conn, item.study_instance_uid, item.revision)
        report = sr.build(result, headers, self._equipment, closed_at, earlier, procedure)
        digest = self._files.put_report(report.content)
        bank_hash = result.provenance.bank_hash if result.provenance else ""
        seen = routing.facts(result, headers, held)
        destinations = routing.destinations(self._destinations, self._routes, seen, before)
        kinds = {kind for name in destinations for kind in self._objects.get(name, ())}
        shown = showing.make(
            self._files, kinds, report, result, held, headers, explained or {}, self._equipment, closed_at
        )

        def commit(conn: Connection) -> None:
            now = self._clock()
            for uid, one in (explained or {}).items():
                if one.layer:
                    heat_maps.put(conn, item.study_instance_uid, uid, item.revision, one.layer, now)
            showing.record(conn, shown, report, item.revision, now)
            reports.add(
                conn,
                report,
                digest=digest,
                revision=item.revision,
                bank_hash=bank_hash,
                verdict=result.verdict,
                result=asdict(result),
                at=now,
                destinations=destinations,
            )
            for name in destinations:
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

_LOST = Refusal(LOST, "the stored file of this image was damaged or missing; send the image again")


def _refused(instance: Instance, refusal: Refusal) -> ImageResult:
    return ImageResult(
        instance.sop_class_uid, instance.sop_instance_uid, instance.series_instance_uid, refusal=refusal
    )


def _header(instance: Instance) -> Dataset:
    try:
        return read_header(instance.path, SHOWN_BY)
    except (CannotUnderstandError, OSError):
        return Dataset()
