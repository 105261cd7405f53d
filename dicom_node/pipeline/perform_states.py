"""What is done in each state of a procedure step that this node performs, and what follows from it.

Owns the meaning of a provider's answers. Each may be done again: an answer that says it is done already is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain import performing
from dicom_node.domain.errors import DestinationRefusedError
from dicom_node.domain.performing import (
    Answer,
    Code,
    Performed,
    Provider,
    Session,
    Step,
    TaskState,
    UpsSource,
)
from dicom_node.domain.retrieval import Archive, Fetch, Fetcher
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Verdict
from dicom_node.domain.urgency import stated
from dicom_node.pipeline import perform_outputs
from dicom_node.pipeline.perform_outcome import Outcome, ended, give_up, lost
from dicom_node.store import expected, holdings, reports, studies, tasks
from dicom_node.store.reports import StoredReport
from dicom_node.store.tasks import Task

_HOLD = timedelta(minutes=30)
_BACKOFF, _BACKOFF_CAP = 2.0, 300.0
_SAFETY_NET = 60.0
_DELIVERY_CAP = 30.0
_UNMET_ATTEMPTS = 5

_OURS = (Answer.DONE, Answer.ALREADY)


class States:
    """Does what a task's state asks for.

    Parameters
    ----------
    archives
        Those that are configured, by name.
    fetch
        Fetches the input.
    destinations
        Those that are configured, by name.
    station
        Code of this node, as the performer.
    renamed
        Returns the SOP Instance UID of a report that was sent as another SOP class.
    """

    def __init__(
        self,
        engine: Engine,
        source: UpsSource,
        provider: Provider,
        fetch: Fetcher,
        clock: Callable[[], datetime],
        *,
        archives: Mapping[str, Archive],
        destinations: Mapping[str, Destination],
        station: Code,
        renamed: Callable[[str, str], str] = lambda sop_instance_uid, _sop_class_uid: sop_instance_uid,
    ) -> None:
        self._engine = engine
        self._source = source
        self._provider = provider
        self._fetch = fetch
        self._clock = clock
        self._archives = archives
        self._destinations = destinations
        self._station = station
        self._renamed = renamed
        self._does: dict[TaskState, Callable[[Task], Outcome]] = {
            TaskState.CLAIMING: self._claim,
            TaskState.FETCHING: self._fetch_input,
            TaskState.WAITING: self._wait,
            TaskState.DELIVERING: self._deliver,
            TaskState.COMPLETING: self._complete,
            TaskState.CANCELING: self._cancel,
        }

    def __call__(self, task: Task) -> Outcome:
        """Return what follows.

        Raises
        ------
        DestinationAwayError, DestinationRefusedError, OutOfResourcesError, DatabaseError
            If it has to be done again.
        """
        return self._does[task.state](task)

    def again(self, task: Task, reason: str) -> Outcome:
        """Return that the same is done again, later each time."""
        wait = min(_BACKOFF * 2 ** min(task.attempts - 1, 10), _BACKOFF_CAP)
        return Outcome(task.state, {"reason": reason}, wait)

    def away(self, task: Task, reason: str) -> Outcome:
        """Return that the same is done again once somebody is back; it does not count as having asked for the input."""
        if task.state is not TaskState.FETCHING or task.started_at is None:
            return self.again(task, reason)
        lasts = (self._clock() - task.started_at).total_seconds()
        values = {"reason": reason, "attempts": task.attempts - 1}
        return Outcome(task.state, values, min(max(_BACKOFF, lasts / 2), _BACKOFF_CAP))

    def _claim(self, task: Task) -> Outcome:
        uid, transaction = task.sop_instance_uid, task.transaction_uid
        with self._provider.session(self._source) as session:
            step = session.get(uid)
            if step is None:
                return lost(Answer.GONE)
            answer = session.change_state(uid, transaction, "IN PROGRESS")
            if answer in (*_OURS, Answer.TAKEN, Answer.NOT_OURS):
                # It may be this node's own claim, whose answer never came: only its Transaction UID may tell progress.
                answer = session.progress(uid, transaction, 0, "Claimed")
        if answer not in _OURS:
            return lost(answer)
        values = {
            "study_instance_uid": step.study_instance_uid,
            "priority": stated(step.priority, task.priority),
            "started_at": self._clock(),
            "reason": "",
        }
        return Outcome(TaskState.FETCHING, values)

    def _fetch_input(self, task: Task) -> Outcome:
        if self._may_stop(task):
            return give_up(performing.ASKED, "its cancellation was asked for before its analysis was begun")
        with self._provider.session(self._source) as session:
            step = session.get(task.sop_instance_uid)
            if step is None:
                return lost(Answer.GONE)
            if step.fault or not step.study_instance_uid:
                return give_up(performing.INPUT_FAULTY, step.fault or "its input names no study")
            answer = session.progress(task.sop_instance_uid, task.transaction_uid, 10, "Fetching the input")
        if answer not in _OURS:
            return lost(answer)
        missing = self._bring_in(task, step)
        if missing and task.attempts >= self._source.input_attempts:
            return give_up(performing.INPUT_MISSING, missing)
        if missing:
            return self.again(task, missing)
        with writing(self._engine) as conn:
            now, study = self._clock(), step.study_instance_uid
            self._expect(conn, task, study, "complete", holdings.held(conn, study), now)
            revision = studies.latest_revision(conn, study)
        if revision is None:
            return self.again(task, "the archive sent no image of its study")
        return Outcome(TaskState.WAITING, {"study_instance_uid": study, "revision": revision, "reason": ""})

    def _bring_in(self, task: Task, step: Step) -> str:
        """Fetch the input; return what is missing, "" where it is all here."""
        study = step.study_instance_uid
        with writing(self._engine) as conn:
            held = holdings.held(conn, study)
            named = frozenset(step.sop_instance_uids) - holdings.own(conn, study)
            if named and named <= held:
                return ""
            self._expect(conn, task, study, "open", (), self._clock())
        archive = self._archive(step)
        if archive is None:
            if held and not named:  # somebody else sends the images, and did
                return ""
            titles = ", ".join(step.retrieve_ae_titles) or "none"
            return (
                f"its input is at AE titles {titles}, and none of the [[archives]] has one of these; configure it, or "
                "name one with archive in [[ups_sources]]"
            )
        try:
            fetched = self._fetch(archive, Fetch(study, step.series_instance_uids, step.sop_instance_uids))
        except DestinationRefusedError as error:
            return str(error)
        if not fetched.complete:
            return fetched.reason or f"{fetched.failed} images failed, {fetched.stored} came"
        with reading(self._engine) as conn:
            absent = len(named - holdings.held(conn, study))
        return (
            f"{absent} of {len(named)} images that its input names are not in {archive.name}" if absent else ""
        )

    def _archive(self, step: Step) -> Archive | None:
        if self._source.archive:
            return self._archives.get(self._source.archive)
        return next((one for one in self._archives.values() if one.ae_title in step.retrieve_ae_titles), None)

    def _expect(self, conn: Any, task: Task, study: str, state: Any, refs: Any, now: datetime) -> None:
        expected.put(
            conn,
            source="ups",
            key=f"{task.source}:{task.sop_instance_uid}",
            study_instance_uid=study,
            at=now,
            priority=task.priority,
            state=state,
            refs=refs,
            until=now + _HOLD,
        )

    def _wait(self, task: Task) -> Outcome:
        study, revision = task.study_instance_uid, task.revision or 0
        with reading(self._engine) as conn:
            report = reports.get(conn, study, revision)
            analysis = tasks.analysis(conn, study, revision)
        if report is not None and report.verdict is Verdict.FAILED:
            return give_up(performing.FAILED, "the analysis failed; its report says why")
        if report is not None:
            return Outcome(TaskState.DELIVERING, {"reason": ""})
        if analysis is State.CANCELED:
            return give_up(performing.ASKED, "its analysis was canceled here")
        if self._may_stop(task):
            return give_up(performing.ASKED, "its cancellation was asked for before its analysis was begun")
        with self._provider.session(self._source) as session:
            answer = session.progress(
                task.sop_instance_uid, task.transaction_uid, 50, "Waiting for the analysis"
            )
        if answer not in _OURS:
            return lost(answer)
        return Outcome(TaskState.WAITING, {"reason": ""}, _SAFETY_NET)

    def _may_stop(self, task: Task) -> bool:
        """Return whether somebody asked to cancel and the analysis is not begun; the study is analysed all the same."""
        if not task.cancel_requested:
            return False
        if task.revision is None:
            return True
        with reading(self._engine) as conn:
            return tasks.analysis(conn, task.study_instance_uid, task.revision) in (None, State.SCHEDULED)

    def _deliver(self, task: Task) -> Outcome:
        _report, sent = self._sent(task)
        awaited = [
            one
            for one in sent
            if self._source.wait_for_delivery is None or one.destination in self._source.wait_for_delivery
        ]
        left = [one for one in awaited if one.state not in (State.COMPLETED, State.CANCELED)]
        if not left:
            return Outcome(TaskState.COMPLETING, {"reason": ""})
        failed = [one.destination for one in left if one.state is State.FAILED]
        reason = f"delivery to {', '.join(failed)} has failed and waits for a person" if failed else ""
        return Outcome(task.state, {"reason": reason}, min(0.5 * 2 ** min(task.attempts, 10), _DELIVERY_CAP))

    def _complete(self, task: Task) -> Outcome:
        uid, transaction = task.sop_instance_uid, task.transaction_uid
        report, sent = self._sent(task)
        outputs = perform_outputs.outputs(self._engine, report, sent, self._destinations, self._renamed)
        with self._provider.session(self._source) as session:
            step = session.get(uid)
            if step is None:
                return lost(Answer.GONE)
            if step.state == "COMPLETED":
                return Outcome(TaskState.COMPLETED, {"reason": ""})
            started = task.started_at or self._clock()
            codes = step.work_items or (("110004", "DCM", "Computer Aided Detection"),)
            what = Performed(self._station, codes, started, self._clock(), outputs)
            answer = session.performed(uid, transaction, what)
            if answer in _OURS:
                answer = session.change_state(uid, transaction, "COMPLETED")
        if answer in _OURS:
            return Outcome(TaskState.COMPLETED, {"reason": ""})
        if answer is Answer.UNMET and task.attempts >= _UNMET_ATTEMPTS:
            return give_up(performing.FAILED, f"the provider says: {answer.value}")
        return (
            self.again(task, f"the provider says: {answer.value}") if answer is Answer.UNMET else lost(answer)
        )

    def _sent(self, task: Task) -> tuple[StoredReport, tuple[tasks.Sent, ...]]:
        with reading(self._engine) as conn:
            report = reports.get(conn, task.study_instance_uid, task.revision or 0)
            if report is None:
                raise DestinationRefusedError(f"the report on study {task.study_instance_uid} is gone")
            return report, tasks.sendings(
                conn, task.study_instance_uid, task.revision or 0, report.sop_instance_uid
            )

    def _cancel(self, task: Task) -> Outcome:
        uid, transaction = task.sop_instance_uid, task.transaction_uid
        code = performing.DISCONTINUED.get(task.discontinued, performing.ASKED)
        with self._provider.session(self._source) as session:
            step = session.get(uid)
            if step is None:
                return lost(Answer.GONE)
            if step.state in ("COMPLETED", "CANCELED"):
                return ended(step.state, task)
            answer = _canceled(session, uid, transaction, self._clock(), code)
        if answer is Answer.UNMET:
            return self.again(task, f"{task.reason}; the provider says: {answer.value}")
        return Outcome(TaskState.CANCELED, {"reason": task.reason}) if answer in _OURS else lost(answer)


def _canceled(session: Session, uid: str, transaction: str, at: datetime, code: Code) -> Answer:
    answer = session.discontinued(uid, transaction, at, code)
    return session.change_state(uid, transaction, "CANCELED") if answer in _OURS else answer
