from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from apscheduler.schedulers.background import BackgroundScheduler

from dicom_node.config import BankSchedule, BankSection, Config, Db
from dicom_node.db.engine import open_engine
from dicom_node.db.migrate import upgrade
from dicom_node.pipeline.schedule import Duty, Schedule, catch_up
from dicom_node.store.files import FileStore
from tests.fakes import ManualClock


def jobs(tmp_path: Path, cron: str) -> dict[str, object]:
    """Return the triggers of a schedule that is never started."""
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    config = Config(bank=BankSection(schedule=BankSchedule(cron=cron)))
    schedule = Schedule(engine, FileStore(tmp_path / "store", 0), config, ManualClock())
    engine.dispose()
    return {job.id: job.trigger for job in schedule._scheduler.get_jobs()}


def test_banks_are_rebuilt_by_themselves_only_where_the_configuration_says_when(tmp_path: Path) -> None:
    always = set(jobs(tmp_path, ""))
    assert always >= {"gather quiet studies", "rescue expired leases", "sweep incoming", "prune"}
    assert "rebuild" not in always
    trigger = jobs(tmp_path, "0 3 * * sun")["rebuild"]
    friday = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, friday) == datetime(2026, 1, 4, 3, tzinfo=UTC)  # type: ignore[attr-defined]


def test_duties_that_wait_for_peers_that_are_away_hold_up_no_other(tmp_path: Path) -> None:
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'node.db'}"))
    upgrade(engine)
    back, done = threading.Event(), threading.Event()

    def wait() -> None:
        back.wait(60)

    duties: list[Duty] = [(f"ask peer {number}", 60.0, wait) for number in range(20)]
    duties.append(("gather", 0.1, done.set))
    files = FileStore(tmp_path / "store", 0)
    try:
        with Schedule(engine, files, Config(), lambda: datetime.now(UTC), more=duties):
            ran = done.wait(30)
            back.set()
        assert ran
    finally:
        engine.dispose()


def test_duties_run_although_the_clock_went_back_and_what_has_a_time_of_day_waits_for_it() -> None:
    at = datetime(2026, 1, 2, 12, tzinfo=UTC)
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start(paused=True)
    scheduler.add_job(lambda: None, "interval", seconds=10, id="duty", next_run_time=at + timedelta(seconds=10))
    scheduler.add_job(lambda: None, "cron", hour=13, id="rebuild", next_run_time=at + timedelta(hours=1))
    catch_up(scheduler, at)
    assert scheduler.get_job("duty").next_run_time == at + timedelta(seconds=10)
    catch_up(scheduler, at - timedelta(hours=3))
    assert scheduler.get_job("duty").next_run_time == at - timedelta(hours=3)
    assert scheduler.get_job("rebuild").next_run_time == at + timedelta(hours=1)
    scheduler.shutdown()
