"""Procedure steps from the node's side: made, found, watched, canceled by peers; performed by the node alone.

Owns the transactions and what each request comes to (PS3.4 annex CC). Knows nothing of associations. The data set that
a creator sent, the patient in it, is a file of the store; the database has UIDs and states.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime, timedelta
from uuid import uuid4

from pydicom import Dataset
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import NotFoundError, StepRefusedError, StoreError
from dicom_node.domain.procedure_steps import Step
from dicom_node.domain.states import State
from dicom_node.pipeline import rerun, step_matching, step_reports, step_rules, step_sets
from dicom_node.pipeline.step_said import Said
from dicom_node.pipeline.step_watching import known
from dicom_node.queue import items
from dicom_node.store import (
    expected,
    node_facts,
    procedure_steps,
    step_events,
    step_files,
    step_following,
    studies,
)
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)


class Steps:
    """What peers may ask (`receive.procedure_steps.Keeper`).

    Parameters
    ----------
    codes
        Work item codes that may be asked for, each "value^scheme".
    archives
        Names of the archives that input is fetched from, by AE title.
    keep
        How long a step is kept after it ended.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        said: Said,
        clock: Callable[[], datetime],
        *,
        device_uid: str,
        codes: Collection[str],
        archives: Mapping[str, str],
        keep: timedelta,
    ) -> None:
        self._engine = engine
        self._files = files
        self._said = said
        self._clock = clock
        self._device_uid = device_uid
        self._codes = tuple(codes)
        self._archives = archives
        self._keep = keep

    def follow(self) -> int:
        """Bring steps to the state of their work items, owing the events; return how many changed."""
        now = self._clock()
        with writing(self._engine) as conn:
            since = node_facts.node_value(conn, "procedure_steps_since", now.isoformat())
            began = datetime.fromisoformat(since)
            return step_following.follow(conn, self._device_uid, began, now - self._keep, now)

    def create(self, uid: str, asked: Dataset, calling_ae_title: str) -> str:
        """Make a step and return its UID, a new one where `uid` is "" (PS3.4 section CC.2.5).

        Raises
        ------
        StepRefusedError
            If it is none that this node makes.
        """
        study = step_sets.check_new(asked, self._codes)
        uid = uid or f"2.25.{uuid4().int}"
        with reading(self._engine) as conn:
            if procedure_steps.get(conn, uid) is not None:
                raise StepRefusedError(ups.DUPLICATE, "a step of that UID is known")
        priority = step_sets.priority_of(asked)
        digest = step_files.put(self._files, step_sets.encoded(asked, uid))
        self._add(uid, study, asked, priority, digest, calling_ae_title)
        self.follow()
        return uid

    def _add(
        self, uid: str, study: str, asked: Dataset, priority: int, digest: str, calling_ae_title: str
    ) -> None:
        now = self._clock()
        with writing(self._engine) as conn:
            item_id, revision = self._scheduled(conn, study, priority, now)
            titles = (self._archives.get(title, "") for title in step_sets.retrieve_titles(asked))
            archive = next((name for name in titles if name), "")
            held = studies.latest_revision(conn, study) is not None
            if not procedure_steps.add(
                conn,
                uid,
                study,
                priority=priority,
                digest=digest,
                asked_by=calling_ae_title,
                at=now,
                item_id=item_id,
                revision=revision,
                archive="" if held else archive,
                assigned=step_sets.assigned(asked),
            ):
                raise StepRefusedError(ups.DUPLICATE, "a step of that UID is known")
            expected.put(
                conn,
                source="ups",
                key=uid,
                study_instance_uid=study,
                at=now,
                priority=priority,
            )

    def _scheduled(
        self, conn: Connection, study: str, priority: int, now: datetime
    ) -> tuple[int | None, int | None]:
        """Have a study analysed that is here and complete; return its work item and revision.

        None of both where its images are not here yet, or still come.
        """
        if studies.latest_revision(conn, study) is None:
            return None, None
        try:
            done = rerun.rerun(conn, study, now, priority=priority)
        except NotFoundError as error:
            raise StepRefusedError(ups.INVALID_VALUE, str(error)) from error
        return done.item_id, None if done.item_id is None else done.revision

    def get(self, uid: str) -> Dataset:
        """Return what a step says (PS3.4 section CC.2.7).

        Raises
        ------
        StepRefusedError
            If there is none of that UID.
        """
        self.follow()
        return self._said(self._known(uid))

    def find(self, keys: Dataset) -> Iterator[Dataset]:
        """Yield what a query asks for of each step that matches, the newest first (PS3.4 section CC.2.8)."""
        self.follow()
        state = str(keys.get("ProcedureStepState") or "")
        states = [state] if state in ups.STATES else []
        uids, about = (_several(keys.get(name)) for name in ("SOPInstanceUID", "StudyInstanceUID"))
        with reading(self._engine) as conn:  # which leaves out most steps before any file is read
            candidates = procedure_steps.newest(conn, states, uids, about)
        found = 0
        for step in candidates:
            if not self._said.may_match(step, keys):
                continue
            try:
                ds = self._said(step)
            except StoreError as error:  # one damaged file hides no other step
                log.warning("a procedure step cannot be told of", extra={"reason": str(error)})
                continue
            if step_matching.matches(keys, ds):
                yield step_matching.answer(keys, ds)
                found += 1
                if found >= ups.MOST_ANSWERS:
                    return

    def set(self, uid: str, _changes: Dataset) -> None:
        """Refuse to change a step: its performer is the node (PS3.4 section CC.2.6); see `step_rules`."""
        self.follow()
        raise step_rules.no_setting(self._known(uid))

    def change_state(self, uid: str, state: str, transaction_uid: str) -> int:
        """Refuse a change of state: its performer is the node (PS3.4 table CC.1.1-2); see `step_rules`."""
        self.follow()
        raise step_rules.no_change(self._known(uid), state, transaction_uid)

    def request_cancel(self, uid: str, said: Dataset, calling_ae_title: str) -> int:
        """Cancel a step that has not begun, as its watchers are told (PS3.4 section CC.2.2); return the status.

        Parameters
        ----------
        said
            Action Information of the request.

        Raises
        ------
        StepRefusedError
            If it is not canceled.
        """
        self.follow()
        step = self._known(uid)
        if step.state == ups.CANCELED:
            return ups.ALREADY_CANCELED
        if step.state == ups.COMPLETED:
            raise StepRefusedError(ups.IS_COMPLETED, "the step is COMPLETED")
        told = step_reports.chosen(said, step_reports.OF_A_CANCEL_REQUEST)
        digest = step_files.put(self._files, step_sets.filed(told, f"2.25.{uuid4().int}")) if told else ""
        with writing(self._engine) as conn:
            canceled, watchers = self._cancel(conn, step, calling_ae_title, digest)
        if digest and not watchers:
            step_files.remove(self._files, digest)
        if not canceled:
            raise StepRefusedError(ups.WILL_NOT_CANCEL, "the analysis has begun")
        self.follow()
        return 0

    def _cancel(self, conn: Connection, step: Step, by: str, digest: str) -> tuple[bool, int]:
        """Cancel a step whose analysis has not begun; return whether that was done, and how many are told of it."""
        uid, now, reason = step.sop_instance_uid, self._clock(), f"cancel requested by {by}"
        if step.work_item_id is not None and items.get(conn, step.work_item_id).state is not State.SCHEDULED:
            return False, 0
        watchers = step_events.tell(
            conn, uid, step.state, now, kind=ups.CANCEL_REQUESTED, requesting_ae=by, digest=digest
        )
        item = step.work_item_id
        if item is not None and procedure_steps.alone(conn, uid, item):
            items.cancel(conn, item, now, reason=reason)
        elif not procedure_steps.end(conn, uid, reason, now, item):
            raise StepRefusedError(ups.WILL_NOT_CANCEL, "the analysis begins just now")
        expected.settle(conn, "ups", uid, "withdrawn", now)
        return True, watchers

    def _known(self, uid: str) -> Step:
        with reading(self._engine) as conn:
            return known(conn, uid)


def _several(value: object) -> list[str]:
    if value is None or value == "":
        return []
    several = list(value) if not isinstance(value, str) and hasattr(value, "__iter__") else [value]
    return [str(one) for one in several]
