from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from dicom_node.config import BankSchedule, BankSection, Config, Db
from dicom_node.db.engine import open_engine
from dicom_node.pipeline.schedule import Schedule
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
    assert set(jobs(tmp_path, "")) == {"gather quiet studies", "rescue expired leases", "sweep incoming"}
    trigger = jobs(tmp_path, "0 3 * * sun")["rebuild"]
    friday = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, friday) == datetime(2026, 1, 4, 3, tzinfo=UTC)  # type: ignore[attr-defined]
