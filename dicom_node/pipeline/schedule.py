"""The periodic duties, on APScheduler. Each may run in every process at once: the database decides."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from types import TracebackType

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import Engine

from dicom_node.config import Config
from dicom_node.db.statistics import refresh
from dicom_node.domain.audit import Audit, unheard
from dicom_node.domain.errors import NodeError
from dicom_node.pipeline import security
from dicom_node.pipeline.arriving import Arrivals, secret
from dicom_node.pipeline.builder import Builder
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.pipeline.retention import prune
from dicom_node.pipeline.sweep import follow_the_clock, rescue_leases, sweep_incoming
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

Duty = tuple[str, float, Callable[[], object]]
"""Name, seconds between runs, what is done."""


_LOOK_SECONDS = 1.0


class Schedule:
    """Runs the duties in the background between `start` and `stop`.

    Parameters
    ----------
    more
        Further duties.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        config: Config,
        clock: Callable[[], datetime],
        audit: Audit = unheard,
        more: Sequence[Duty] = (),
    ) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        rules = [one.rule for one in config.priorities]
        worklists = bool(config.modality_worklists)
        look = Arrivals(engine, files, rules, secret(engine) if worklists else "", worklists=worklists).look
        duties: list[Duty] = [
            (
                "gather quiet studies",
                config.gather.poll_seconds,
                lambda: close_quiet_revisions(engine, config.gather, clock, look),
            ),
            ("rescue expired leases", config.queue.lease_seconds / 4, lambda: rescue_leases(engine, clock)),
            (
                "follow the clock",
                config.queue.lease_seconds / 4,
                lambda: follow_the_clock(engine, clock, config.queue.lease_seconds),
            ),
            ("look at certificates", 86_400.0, lambda: security.watch(config, clock)),
            ("sweep incoming", 600.0, lambda: sweep_incoming(files, clock)),
            ("prune", 3600.0, lambda: prune(engine, files, config.store, clock, audit=audit)),
            ("count the tables", 3600.0, lambda: refresh(engine)),
            *more,
        ]
        # A thread for each: peers that are away, each waited for by another duty, hold up neither gathering nor leases.
        self._scheduler.add_executor(ThreadPoolExecutor(len(duties) + 1))
        for name, seconds, duty in duties:
            self._scheduler.add_job(
                _guarded(name, duty), "interval", seconds=seconds, id=name, next_run_time=clock()
            )
        self._clock = clock
        self._stopped = threading.Event()
        self._watch = threading.Thread(target=self._watch_the_clock, name="clock", daemon=True)
        self._builder = Builder()
        if config.bank.schedule.cron:
            self._scheduler.add_job(
                _guarded("rebuild", self._rebuild(engine, files, config, clock)),
                CronTrigger.from_crontab(config.bank.schedule.cron, timezone="UTC"),
                id="rebuild",
            )

    def _rebuild(
        self, engine: Engine, files: FileStore, config: Config, clock: Callable[[], datetime]
    ) -> Callable[[], object]:
        def duty() -> object:
            # Loads torch: a process that only receives has no need of it until then.
            from dicom_node.pipeline.rebuild import rebuild_as_scheduled

            return rebuild_as_scheduled(engine, files, config, clock, self._builder)

        return duty

    def __enter__(self) -> Schedule:
        self._scheduler.start()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._builder.stop()
        self._stopped.set()
        self._watch.join()
        self._scheduler.shutdown(wait=True)

    def _watch_the_clock(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            catch_up(self._scheduler, self._clock())


def catch_up(scheduler: BaseScheduler, now: datetime) -> None:
    """Let every duty run whose next run is further away than its interval, because the clock went back.

    APScheduler waits by the clock: it would do nothing until the clock has caught up.
    """
    for job in scheduler.get_jobs():
        every = getattr(job.trigger, "interval", None)
        if every is not None and job.next_run_time - now > every + timedelta(seconds=_LOOK_SECONDS):
            log.warning("the clock went back, a periodic duty runs now", extra={"duty": job.id})
            job.modify(next_run_time=now)


def _guarded(name: str, duty: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            duty()
        except NodeError as error:
            log.warning("a periodic duty failed and will run again", extra={"duty": name, "reason": str(error)})

    return run
