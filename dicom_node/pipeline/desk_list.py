"""The list of studies that people read: lines of the tables and patients of the headers become its rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading
from dicom_node.domain.ids import DELIVERED_AE_TITLE, SELFTEST_AE_TITLE
from dicom_node.domain.reading import DeliveryState, Filters, Progress, StudyList, StudyRow
from dicom_node.domain.sop_classes import GROUPS
from dicom_node.domain.states import State
from dicom_node.domain.urgency import ROUTINE
from dicom_node.pipeline import story
from dicom_node.pipeline.desk_patients import NOBODY, Patients, Search
from dicom_node.store import reading_list, reading_rows
from dicom_node.store.reading_rows import Line

OWN = (SELFTEST_AE_TITLE, DELIVERED_AE_TITLE)
MOST = 200
"""Rows of one page at most."""

Priority = Callable[[Connection, str], int]
"""The most urgent of what is known of a study before it is queued; see `store.expected.priority`."""

_CLASS_OF = {uid: name for name in reading_list.MODALITIES for uid in GROUPS[name]}


class Listing:
    """Answers what the list asks.

    Parameters
    ----------
    priority
        Of a study that has no work yet.
    """

    def __init__(
        self,
        engine: Engine,
        patients: Patients,
        clock: Callable[[], datetime],
        priority: Priority = lambda _conn, _study: ROUTINE,
    ) -> None:
        self._engine = engine
        self._patients = patients
        self._clock = clock
        self._priority = priority

    def studies(self, filters: Filters, offset: int, limit: int) -> StudyList:
        """Return one page; see `web.desk.Desk.studies`."""
        search = self._patients.search(filters.search) if filters.search.strip() else None
        with reading(self._engine) as conn:
            found = reading_list.page(
                conn,
                filters,
                own=OWN,
                offset=max(offset, 0),
                limit=min(max(limit, 1), MOST),
                among=None if search is None else search.studies,
            )
            lines = reading_rows.lines(conn, found.studies)
            early = {
                line.study_instance_uid: self._priority(conn, line.study_instance_uid)
                for line in lines
                if line.analysis is None
            }
        now = self._clock()
        rows = tuple(self._row(line, now, early.get(line.study_instance_uid, ROUTINE)) for line in lines)
        return StudyList(rows, found.total, "" if search is None else _note(search))

    def row(self, conn: Connection, study_instance_uid: str) -> StudyRow | None:
        """Return the row of one study; None where no image of it was ever received."""
        lines = reading_rows.lines(conn, [study_instance_uid])
        if not lines:
            return None
        early = ROUTINE if lines[0].analysis else self._priority(conn, study_instance_uid)
        return self._row(lines[0], self._clock(), early)

    def _row(self, line: Line, now: datetime, early: int) -> StudyRow:
        report, first = line.report, line.first
        result: Mapping[str, Any] = {} if report is None else report["result"]
        image = _decisive(result)
        score: Mapping[str, Any] = image.get("score") or {}
        far = progress(line)
        held = first is not None and first["kept"] == "yes"
        return StudyRow(
            study_instance_uid=line.study_instance_uid,
            patient=self._patients.of(first["digest"]) if first is not None and held else NOBODY,
            revision=line.revision,
            received_at=line.received_at,
            images=line.images,
            modalities=tuple(sorted({_CLASS_OF.get(uid, "OT") for uid in line.sop_classes})),
            progress=far,
            verdict=None if report is None else str(report["verdict"]),
            percentile=score.get("percentile"),
            threshold_percentile=threshold_percentile(image.get("provenance")),
            score=score.get("value"),
            priority=early if line.analysis is None else _priority(line),
            waiting_seconds=None if far is Progress.ANSWERED or _answered(line) else _since(line, now),
            deliveries=_deliveries(line),
            mark=line.mark,
            decisive_image="" if first is None else str(first["sop_instance_uid"]),
            reason=_reason(line, result),
        )


def progress(line: Line) -> Progress:
    """Return how far the node is with a study, as `store.reading_list` filters by it.

    FAILED is an analysis that waits for a person, or one that was canceled before anything was answered.
    """
    if line.is_open:
        return Progress.ARRIVING
    state = None if line.analysis is None else line.analysis["state"]
    if state == State.IN_PROGRESS:
        return Progress.ANALYSING
    if state == State.SCHEDULED:
        return Progress.QUEUED
    if state == State.FAILED:
        return Progress.FAILED
    if line.report is not None:
        return Progress.ANSWERED
    return Progress.QUEUED if state is None else Progress.FAILED


def threshold_percentile(provenance: Mapping[str, Any] | None) -> float | None:
    """Return the percentile of a bank's threshold among its own calibration scores.

    The threshold is the calibration score that at most the share `false_positive_rate` of them exceed (see
    `score.calibration`), so a score is above it exactly where its percentile is higher, unless scores are equal.
    """
    if not provenance or not provenance.get("calibration_images"):
        return None
    images = int(provenance["calibration_images"])
    exceeding = int(float(provenance["false_positive_rate"]) * images + 1e-9)
    return 100.0 * (images - 1 - exceeding) / images


def _decisive(result: Mapping[str, Any]) -> Mapping[str, Any]:
    images, index = result.get("images") or (), result.get("decisive")
    found: Mapping[str, Any] = {} if index is None else images[index]
    return found


def _priority(line: Line) -> int:
    """Return the most urgent priority of work that is left, else of the analysis."""
    left = [
        item["priority"]
        for item in (line.analysis, *line.items)
        if item is not None and item["state"] in (State.SCHEDULED, State.IN_PROGRESS)
    ]
    done = ROUTINE if line.analysis is None else line.analysis["priority"]
    return int(min(left, default=done))


def _answered(line: Line) -> bool:
    return not line.is_open and line.report is not None and line.report["revision"] == line.revision


def _since(line: Line, now: datetime) -> float:
    return max((now - (line.revision_at or line.received_at)).total_seconds(), 0.0)


def _deliveries(line: Line) -> tuple[DeliveryState, ...]:
    items = {item["destination"]: item for item in line.items}
    sent = {delivery["destination"]: delivery for delivery in line.deliveries}
    states = []
    for name in sorted(items | sent):
        item = items.get(name)
        state = story.delivery_state(item, sent.get(name))
        reason = "" if item is None or state in story.SETTLED else str(item["reason"])
        states.append(DeliveryState(name, state, reason, None if item is None else int(item["id"])))
    return tuple(states)


def _reason(line: Line, result: Mapping[str, Any]) -> str:
    if line.analysis is not None and line.analysis["state"] in (State.FAILED, State.SCHEDULED):
        return str(line.analysis["reason"] or result.get("reason", ""))
    if line.report is None and line.analysis is not None:
        return str(line.analysis["reason"])
    return str(result.get("reason", ""))


def _note(search: Search) -> str:
    told = []
    if not search.complete:
        told.append(
            f"{search.looked_at} of {search.of} studies were looked at so far; search again in a moment for the others"
        )
    if search.cut:
        told.append("more studies meet this than can be listed; write more of the name")
    return ". ".join(told)
