"""Performs procedure steps of other providers: finds them, and moves each task on by one state at a time.

What a state does is in `perform_states`. Every step may be done again after a crash: what is sent is a function of the
row, which was committed before. Knows no network: provider and fetcher are given to it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    DatabaseError,
    DestinationAwayError,
    DestinationRefusedError,
    NodeError,
    OutOfResourcesError,
)
from dicom_node.domain.performing import Provider, TaskState, UpsSource
from dicom_node.domain.urgency import name, stated
from dicom_node.pipeline.perform_outcome import Outcome
from dicom_node.pipeline.perform_states import States
from dicom_node.store import expected, tasks
from dicom_node.store.tasks import Task

log = logging.getLogger(__name__)

LEASE_SECONDS = 300.0
TICK_SECONDS = 1.0
"""Between looks at what is due; the provider is asked every `poll_seconds` only."""

_IN_ONE_RUN = timedelta(seconds=60)
_LOOKED_AT = 2000
_SUBSCRIBED = timedelta(hours=1)
_SAFETY_NET = 10
_CLAIM_ATTEMPTS = 5


class Perform:
    """One run asks the provider, if that is due, and moves tasks on until nothing is due or a minute has passed.

    Parameters
    ----------
    states
        What each state does.
    new_uid
        Makes Transaction UIDs.
    stopped
        Says that the node stops: nothing further is begun.
    lease_seconds
        After so long without a sign of life of its worker another one takes a task up.
    """

    def __init__(
        self,
        engine: Engine,
        source: UpsSource,
        provider: Provider,
        states: States,
        clock: Callable[[], datetime],
        new_uid: Callable[[], str],
        stopped: Callable[[], bool] = lambda: False,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._engine = engine
        self._source = source
        self._provider = provider
        self._states = states
        self._clock = clock
        self._new_uid = new_uid
        self._stopped = stopped
        self._lease = lease_seconds
        self._woken = threading.Event()
        self._poll_at: datetime | None = None
        self._subscribed = False
        self._subscribe_at: datetime | None = None

    @property
    def source(self) -> UpsSource:
        """Whose steps these are."""
        return self._source

    def wake(self, *, subscribe: bool = False) -> None:
        """Have the provider asked at the next run, because it said that something changed.

        With `subscribe` it may have forgotten the subscription, which is asked for again, too.
        """
        if subscribe:
            self._subscribe_at = None
        self._woken.set()

    def __call__(self) -> int:
        """Do what is due; return how many tasks were moved on."""
        try:
            self._look()
        except (DestinationAwayError, DestinationRefusedError) as error:
            log.warning("a worklist cannot be asked", extra={"source": self._source.name, "reason": str(error)})
        until = self._clock() + _IN_ONE_RUN
        moved = 0
        while not self._stopped() and self._clock() < until:
            with writing(self._engine) as conn:
                task = tasks.claim(conn, self._source.name, self._clock(), self._lease, str(uuid4()))
            if task is None:
                break
            self.advance(task)
            moved += 1
        return moved

    def _look(self) -> None:
        """Ask the provider, if that is due. Where it cannot be asked, it is asked again after `poll_seconds`."""
        now, every = self._clock(), timedelta(seconds=self._source.poll_seconds)
        if self._source.mode == "subscribe" and _due(self._subscribe_at, now, max(every, _SUBSCRIBED)):
            self._subscribe_at, self._subscribed = now + every, False
            to = self._provider.subscribe(self._source)
            self._subscribe_at, self._subscribed = now + _SUBSCRIBED, True
            log.info("subscribed", extra={"source": self._source.name, "to": to})
        if not self._woken.is_set() and not _due(self._poll_at, now, _SAFETY_NET * every):
            return
        self._woken.clear()
        self._poll_at = now + (_SAFETY_NET * every if self._subscribed else every)
        try:
            self.poll()
        except NodeError:
            self._poll_at = now + every
            raise

    def poll(self) -> int:
        """Ask for scheduled steps and decide to claim those there is room for; return how many."""
        with reading(self._engine) as conn:
            room = self._source.items_at_a_time - tasks.under_way(conn, self._source.name)
        if room <= 0:
            self._poll_at = self._clock() + timedelta(seconds=min(self._source.poll_seconds, 5.0))
            return 0
        found = self._provider.scheduled(self._source, _LOOKED_AT)
        with writing(self._engine) as conn:
            old = tasks.known(conn, self._source.name, [step.sop_instance_uid for step in found])
            new = [step for step in found if step.sop_instance_uid not in old][:room]
            for step in new:
                tasks.add(
                    conn,
                    source=self._source.name,
                    sop_instance_uid=step.sop_instance_uid,
                    transaction_uid=self._new_uid(),
                    priority=stated(step.priority),
                    at=self._clock(),
                )
        if len(found) - len(old) > room:  # there is more: ask again as soon as there is room
            self._poll_at = self._clock()
        return len(new)

    def advance(self, task: Task) -> None:
        """Do what the state of a task asks for, and note what came of it."""
        try:
            with self._kept(task):
                outcome = self._states(task)
        except (DestinationAwayError, OutOfResourcesError, DatabaseError) as error:
            outcome = self._states.away(task, str(error))
        except NodeError as error:
            outcome = self._states.again(task, str(error))
            if task.state is TaskState.CLAIMING and task.attempts >= _CLAIM_ATTEMPTS:
                outcome = Outcome(TaskState.LOST, {"reason": str(error)})
        self._note(task, outcome)

    @contextmanager
    def _kept(self, task: Task) -> Iterator[None]:
        """Renew the lease while the block runs: to fetch a study may take longer than it lasts."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(self._lease / 3):
                with suppress(DatabaseError), writing(self._engine) as conn:
                    tasks.renew(conn, task, self._clock() + timedelta(seconds=self._lease))

        beat = threading.Thread(target=renew, name=f"lease of task {task.id}", daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()

    def _note(self, task: Task, outcome: Outcome) -> None:
        now = self._clock()
        due = now + timedelta(seconds=outcome.wait)
        with writing(self._engine) as conn:
            mine = tasks.move(conn, task, outcome.state, now, due, **outcome.values)
            if mine and outcome.state in (TaskState.LOST, TaskState.CANCELED):
                expected.settle(conn, "ups", f"{task.source}:{task.sop_instance_uid}", "withdrawn", now)
        unwell = outcome.values.get("reason") and outcome.state not in (TaskState.COMPLETED,)
        if outcome.state is task.state and not unwell:
            return
        log.log(
            logging.WARNING if unwell else logging.INFO,
            "procedure step",
            extra={
                "source": task.source,
                "step": task.sop_instance_uid,
                "study_instance_uid": outcome.values.get("study_instance_uid", task.study_instance_uid),
                "state": outcome.state.value if mine else "taken up by another worker",
                "attempts": task.attempts,
                "reason": outcome.values.get("reason", ""),
            },
        )


def _due(at: datetime | None, now: datetime, longest: timedelta) -> bool:
    """Return whether a moment has come; one further away than it can be was set before the clock went back."""
    return at is None or not timedelta() < at - now <= longest


def ask_to_cancel(engine: Engine, sop_instance_uid: str, at: datetime) -> bool:
    """Note that a provider asks for a step to be canceled; return whether this node performs that step.

    Raises
    ------
    DatabaseError
        If that cannot be noted now; the provider must tell again.
    """
    with writing(engine) as conn:
        return tasks.request_cancel(conn, sop_instance_uid, at)


def told(engine: Engine, limit: int) -> list[dict[str, Any]]:
    """Return the tasks as JSON values, those that have not ended first, with the names of their priorities."""
    with reading(engine) as conn:
        rows = tasks.listing(conn, limit)
    return [
        {
            **row,
            "priority": name(row["priority"]),
            **{key: row[key] and row[key].isoformat() for key in ("due_at", "created_at", "updated_at")},
        }
        for row in rows
    ]
