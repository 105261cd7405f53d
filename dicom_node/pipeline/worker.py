"""Takes work items and sees each through: claim, handle under a heartbeat, commit with the acknowledgement.

Owns the second of the two places where any exception is caught: whatever a study does to its handler, the
worker lives on and the study is tried again, then answered with a *failed* report.
"""

from __future__ import annotations

import logging
import random
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

from sqlalchemy import Connection, Engine

from dicom_node.config import Queue
from dicom_node.db.engine import writing
from dicom_node.domain.errors import DatabaseError, LeaseLostError, NodeError
from dicom_node.domain.limits import Limits
from dicom_node.domain.types import Kind, Lease, Refuse, Retry, WorkItem
from dicom_node.observe.context import bound
from dicom_node.pipeline.process import Prepared
from dicom_node.queue import leases
from dicom_node.queue.policy import backoff

log = logging.getLogger(__name__)

_MACHINE_SECONDS = 60.0
"""Longest wait after an attempt that failed by this machine's fault, such as a full disk."""


class Handler(Protocol):
    """What does the work of one kind."""

    def __call__(self, item: WorkItem) -> Prepared:
        """Do the work, write no row, return what to commit."""

    def give_up(self, item: WorkItem, reason: str) -> Prepared:
        """Return what to commit when no attempt is left."""


class Worker:
    """One worker: a loop over the queue, alone in its thread.

    Parameters
    ----------
    handlers
        One handler for each kind this worker takes.
    owner
        Name shown beside the lease, e.g. host, process and thread.
    jitter
        Returns a number in [0, 1) for each backoff.
    limits
        Of the destinations, by name; their attempts and backoff go before the queue's.
    destination
        The only one that this worker delivers to; None for any.
    left_alone
        Returns the destinations that need not be tried now.
    """

    def __init__(
        self,
        engine: Engine,
        config: Queue,
        handlers: Mapping[Kind, Handler],
        owner: str,
        clock: Callable[[], datetime],
        jitter: Callable[[], float] = random.random,
        limits: Mapping[str, Limits] | None = None,
        destination: str | None = None,
        left_alone: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._engine = engine
        self._config = config
        self._handlers = handlers
        self._owner = owner
        self._clock = clock
        self._jitter = jitter
        self._limits = limits or {}
        self._at_a_time = {
            name: limit.max_associations for name, limit in self._limits.items() if limit.max_associations
        }
        self._destination = destination
        self._left_alone = left_alone

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; an item begun is finished first."""
        while not stop.is_set():
            try:
                worked = self.step()
            except DatabaseError as error:
                log.warning("the database is away, waiting", extra={"reason": str(error)})
                stop.wait(self._config.backoff_seconds)
                continue
            if not worked:
                stop.wait(self._config.poll_seconds)

    def step(self) -> bool:
        """Take one item and see it through; return False if there was none.

        Raises
        ------
        DatabaseError
            If the database is away; an item already claimed comes back when its lease has run out.
        """
        with writing(self._engine) as conn:
            lease = leases.claim(
                conn,
                self._owner,
                self._clock(),
                self._config.lease_seconds,
                str(uuid4()),
                kinds=tuple(self._handlers),
                destination=self._destination,
                limits=self._at_a_time if Kind.DELIVER in self._handlers else None,
                without=self._left_alone(),
                patience_seconds=self._config.patience_seconds,
            )
        if lease is None:
            return False
        item = lease.item
        with bound(work_item=item.id, kind=item.kind.value, study_instance_uid=item.study_instance_uid):
            with _Heartbeat(self._engine, self._config.lease_seconds, lease, self._clock):
                prepared = self._handle(item)
            self._see_through(lease, prepared)
        return True

    def _handle(self, item: WorkItem) -> Prepared:
        handler = self._handlers[item.kind]
        allowed = self._allowed(item)
        if item.attempts > allowed:
            return self._give_up(item, item.reason or "the process that worked on it died every time")
        return self._unless_spent(item, _guarded(lambda: handler(item)))

    def _unless_spent(self, item: WorkItem, prepared: Prepared) -> Prepared:
        """Return what was prepared, or what giving up prepares if it is one attempt too many."""
        spent = prepared.counted and item.attempts >= self._allowed(item)
        return (
            self._give_up(item, prepared.outcome.reason)
            if isinstance(prepared.outcome, Retry) and spent
            else prepared
        )

    def _allowed(self, item: WorkItem) -> int:
        if item.kind is Kind.ANALYSE:
            return self._config.analyse_attempts
        return self._limits.get(item.destination, Limits()).attempts or self._config.deliver_attempts

    def _give_up(self, item: WorkItem, reason: str) -> Prepared:
        told = f"gave up after {min(item.attempts, self._allowed(item))} attempts: {reason}"
        prepared = _guarded(lambda: self._handlers[item.kind].give_up(item, told))
        if isinstance(prepared.outcome, Retry) and prepared.counted:
            return Prepared(Refuse(f"{told}; and no report could be made: {prepared.outcome.reason}"), _nothing)
        return prepared

    def _see_through(self, lease: Lease, prepared: Prepared) -> None:
        """Settle, also where the database refuses the very rows that were prepared."""
        settled = _guarded(lambda: self._settle(lease, prepared))
        if settled is prepared:
            return
        instead = self._unless_spent(lease.item, settled)
        if _guarded(lambda: self._settle(lease, instead)) is not instead:
            self._settle(lease, Prepared(Refuse("the database refused the rows; see the log"), _nothing))

    def _settle(self, lease: Lease, prepared: Prepared) -> Prepared:
        item, outcome = lease.item, prepared.outcome
        now = self._clock()
        limits = self._limits.get(item.destination, Limits())
        cap = limits.backoff_cap_seconds or self._config.backoff_cap_seconds
        attempts, base = item.attempts, limits.backoff_seconds or self._config.backoff_seconds
        if not prepared.counted:
            attempts, base = 1, _MACHINE_SECONDS
        retry_at = now + backoff(attempts, base, cap, self._jitter())
        if prepared.again_in is not None:
            retry_at = now + timedelta(seconds=prepared.again_in)
        try:
            with writing(self._engine) as conn:
                state = leases.acknowledge(conn, lease, outcome, now, retry_at, counted=prepared.counted)
                prepared.commit(conn)
        except LeaseLostError as error:
            log.warning("a late acknowledgement changed nothing", extra={"reason": str(error)})
            return prepared
        if prepared.waits and isinstance(outcome, Retry):
            log.info("work waits", extra={"state": state.value, "reason": outcome.reason})
        elif isinstance(outcome, Retry | Refuse):
            log.warning("work not done", extra={"state": state.value, "reason": outcome.reason})
        return prepared


class _Heartbeat:
    """Extends a lease from a thread of its own while the work goes on."""

    def __init__(
        self, engine: Engine, lease_seconds: float, lease: Lease, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._seconds = lease_seconds
        self._lease = lease
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._seconds / 3):
            try:
                with writing(self._engine) as conn:
                    leases.heartbeat(conn, self._lease, self._clock(), self._seconds)
            except LeaseLostError:
                return
            except DatabaseError as error:
                log.warning("a heartbeat did not reach the database", extra={"reason": str(error)})


def _guarded(handle: Callable[[], Prepared]) -> Prepared:
    """Return what `handle` prepared; whatever else a study does to it becomes a Retry."""
    try:
        return handle()
    except DatabaseError:
        raise
    except Exception as error:  # noqa: BLE001 - one study must not stop the worker (one of two such places)
        # The frames without the message: a library's message may quote the value of an element.
        where = "".join(traceback.format_tb(error.__traceback__))
        log.error("an attempt failed", extra={"error": type(error).__name__, "where": where})  # noqa: TRY400 - as said
        reason = str(error) if isinstance(error, NodeError) else f"unexpected {type(error).__name__}"
        counted = not (isinstance(error, NodeError) and error.retryable)
        return Prepared(Retry(reason), _nothing, counted=counted)


def _nothing(_conn: Connection) -> None:
    """Commit no row beyond the acknowledgement."""
