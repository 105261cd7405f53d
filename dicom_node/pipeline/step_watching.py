"""Who watches procedure steps, and what these are told (PS3.4 sections CC.2.3 and CC.2.4). Owns the transactions.

Matching keys may name a patient: they are a file of the store, which goes when their subscription ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import uuid4

from pydicom import Dataset
from sqlalchemy import Connection, Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.errors import OutOfResourcesError, StepRefusedError, StoreError
from dicom_node.domain.procedure_steps import Step, StepEvent
from dicom_node.pipeline import step_matching, step_reports, step_sets
from dicom_node.pipeline.step_said import Said
from dicom_node.store import procedure_steps, step_events, step_files, step_subscriptions
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

_NO_KEYS = {"ReceivingAE", "RequestingAE", "DeletionLock", "SpecificCharacterSet"}
"""Attributes of the Action Information that are no matching keys (PS3.4 table CC.2.3-1)."""


class Watching:
    """Takes subscriptions and says what is told (`receive.procedure_steps.Watchers`).

    Parameters
    ----------
    keep
        How long steps are kept that nobody locked.
    reachable
        Returns whether events can be sent to an AE title that calls from an address.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        said: Said,
        clock: Callable[[], datetime],
        *,
        keep: timedelta,
        reachable: Callable[[str, str], bool],
    ) -> None:
        self._engine = engine
        self._files = files
        self._said = said
        self._clock = clock
        self._keep = keep
        self._reachable = reachable

    def subscribe(self, uid: str, said: Dataset, ae_title: str, peer_address: str) -> int:
        """Let an AE hear of a step, or of all; return the status (PS3.4 section CC.2.3.3).

        Raises
        ------
        StepRefusedError
            If the step or the AE is unknown, or there are no matching keys where there should be.
        OutOfResourcesError
            If there are too many subscriptions.
        """
        if not self._reachable(ae_title, peer_address):
            raise StepRefusedError(
                ups.RECEIVER_UNKNOWN, f"no port of {ae_title!r} is configured in receive.peers"
            )
        everything, filtered = uid in ups.EVERYTHING, uid == ups.FILTERED_GLOBAL
        if not everything:
            self._known(uid)
        asked = str(said.get("DeletionLock") or "") == "TRUE"
        lock = asked and self._may_lock()
        digest = self._keep_keys(said) if filtered else ""
        now = self._clock()
        with writing(self._engine) as conn:
            former = step_subscriptions.digests(conn, ae_title) if everything else set()
            step_subscriptions.subscribe(
                conn, ae_title, uid, peer_address=peer_address, at=now, lock=lock, filter_digest=digest
            )
            if everything:
                step_events.refilter(conn, ae_title, digest)
            states = () if lock or not everything else (ups.SCHEDULED, ups.IN_PROGRESS)
            uids = () if everything else (uid,)
            told = procedure_steps.newest(conn, states, uids, limit=ups.MOST_STEPS)
            step_events.owe(conn, ae_title, peer_address, told, now, digest)
        for lost in former:
            step_files.remove(self._files, lost)
        return ups.DELETION_LOCK_NOT_GRANTED if asked and not lock else 0

    def unsubscribe(self, uid: str, ae_title: str, peer_address: str) -> int:
        """Let an AE hear no more of a step, or of any."""
        everything = uid in ups.EVERYTHING
        if not everything:
            self._known(uid)
        with writing(self._engine) as conn:
            former = step_subscriptions.digests(conn, ae_title) if everything else set()
            step_subscriptions.unsubscribe(conn, ae_title, "" if everything else uid)
            step_events.withdraw(conn, ae_title, "" if everything else uid)
            if not everything and step_subscriptions.watches_all(conn, ae_title):
                step_subscriptions.subscribe(
                    conn, ae_title, uid, peer_address=peer_address, at=self._clock(), wanted=False
                )
        for digest in former:
            step_files.remove(self._files, digest)
        return 0

    def suspend(self, uid: str, ae_title: str) -> int:
        """Let an AE that watches all hear nothing of steps made from now on; of the others it hears on."""
        if uid not in ups.EVERYTHING:
            raise StepRefusedError(ups.NOT_FOR_THIS_INSTANCE, "only the subscription to all is suspended")
        with writing(self._engine) as conn:
            step_subscriptions.suspend(conn, ae_title, self._clock())
        return 0

    def change_status(self, status: str) -> int:
        """Owe those who watch all steps an SCP Status Change; return how many are owed it."""
        with writing(self._engine) as conn:
            return step_events.tell_status(conn, status, self._clock())

    def information(self, event: StepEvent) -> Dataset | None:
        """Return the Event Information of an event; None if it is not to be told, or cannot be any more."""
        if event.kind == ups.SCP_STATUS_CHANGE:
            return step_reports.status(event)
        with reading(self._engine) as conn:
            step = procedure_steps.get(conn, event.sop_instance_uid)
        if step is None:
            return None
        try:
            if event.filter_digest and not self.matches(step, event.filter_digest, event.state):
                return None
            return self._information(event, step)
        except StoreError as error:
            log.warning("a procedure step event cannot be told", extra={"reason": str(error)})
            return None

    def matches(self, step: Step, filter_digest: str, state: str) -> bool:
        """Return whether a step, in a state, matches the keys of a filtered subscription.

        Raises
        ------
        StoreError
            If the keys, or what the creator of the step sent, cannot be read.
        """
        said = self._said(step)
        said.ProcedureStepState = state
        return step_matching.matches(self._said.kept(filter_digest), said)

    def forget(self, digest: str) -> None:
        """Remove what a request to cancel said, once everybody was told."""
        with reading(self._engine) as conn:
            needed = digest in step_events.digests(conn)
        if not needed:
            step_files.remove(self._files, digest)

    def _information(self, event: StepEvent, step: Step) -> Dataset:
        if event.kind == ups.PROGRESS_REPORT:
            return step_reports.progress(event)
        if event.kind == ups.CANCEL_REQUESTED:
            return step_reports.cancel_requested(
                event, self._said.kept(event.digest) if event.digest else Dataset()
            )
        if event.kind == ups.ASSIGNED:
            return step_reports.assigned(self._said(step))
        return step_reports.state(event, "READY" if event.ready else str(self._said(step).InputReadinessState))

    def _keep_keys(self, said: Dataset) -> str:
        keys = Dataset()
        for element in said:
            if element.keyword not in _NO_KEYS:
                keys.add(element)
        if not keys:
            raise StepRefusedError(ups.MISSING_ATTRIBUTE, "a filtered subscription has matching keys")
        if "SpecificCharacterSet" in said:
            keys.SpecificCharacterSet = said.SpecificCharacterSet
        return step_files.put(self._files, step_sets.filed(keys, f"2.25.{uuid4().int}"))

    def _may_lock(self) -> bool:
        """Return whether a deletion lock is granted: not while the disk is full, or locks hold very much already."""
        try:
            self._files.require_space()
        except OutOfResourcesError:
            return False
        with reading(self._engine) as conn:
            return procedure_steps.held_beyond(conn, self._clock() - self._keep) < ups.MOST_LOCKED

    def _known(self, uid: str) -> Step:
        with reading(self._engine) as conn:
            return known(conn, uid)


def known(conn: Connection, uid: str) -> Step:
    """Return a step.

    Raises
    ------
    StepRefusedError
        If there is none of that UID.
    """
    step = procedure_steps.get(conn, uid)
    if step is None:
        raise StepRefusedError(ups.NO_SUCH_STEP, "no step of this node has that SOP Instance UID")
    return step
