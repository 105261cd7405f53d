"""The periodic duties, on APScheduler. Each may run in every process at once: the database decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from types import TracebackType

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from sqlalchemy import Engine

from dicom_node.config import Config
from dicom_node.domain.errors import NodeError
from dicom_node.pipeline.builder import Builder
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.pipeline.sweep import rescue_leases, sweep_incoming
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)


class Schedule:
    """Runs the duties in the background between `start` and `stop`."""

    def __init__(self, engine: Engine, files: FileStore, config: Config, clock: Callable[[], datetime]) -> None:
        self._scheduler = BackgroundScheduler(
            timezone="UTC", job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        duties: list[tuple[str, float, Callable[[], object]]] = [
            (
                "gather quiet studies",
                config.gather.poll_seconds,
                lambda: close_quiet_revisions(engine, config.gather, clock),
            ),
            ("rescue expired leases", config.queue.lease_seconds / 4, lambda: rescue_leases(engine, clock)),
            ("sweep incoming", 600.0, lambda: sweep_incoming(files, clock)),
        ]
        for name, seconds, duty in duties:
            self._scheduler.add_job(
                _guarded(name, duty), "interval", seconds=seconds, id=name, next_run_time=clock()
            )
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._builder.stop()
        self._scheduler.shutdown(wait=True)


def _guarded(name: str, duty: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        try:
            duty()
        except NodeError as error:
            log.warning("a periodic duty failed and will run again", extra={"duty": name, "reason": str(error)})

    return run
