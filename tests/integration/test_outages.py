"""What is away for a while: the PACS, the disk, the database. Nothing is lost, doubled or left over."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Connection, Engine, event

from dicom_node.config import Db
from dicom_node.db.engine import open_engine, writing
from dicom_node.db.migrate import upgrade
from dicom_node.domain.errors import DatabaseError, DestinationAwayError, OutOfResourcesError
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, ImageResult, Kind, Verdict
from dicom_node.domain.urgency import STAT
from dicom_node.pipeline import rerun
from dicom_node.store.files import FileStore
from tests.conftest import cluster
from tests.fakes import scored
from tests.integration.house import HOUR, STEP, House, away
from tests.integration.test_pipeline import _again
from tests.phantoms import chest_dataset


@pytest.fixture
def house(engine: Engine, tmp_path: Path) -> House:
    return House(engine, tmp_path / "store")


def test_a_pacs_that_is_away_for_an_hour_gets_every_report_once_and_the_other_one_does_not_wait(
    house: House,
) -> None:
    tried = Counter[str]()

    def answer(destination: Destination) -> int:
        tried[destination.name] += 1
        if destination.name == "pacs":
            raise DestinationAwayError("pacs refuses the connection")
        return 0

    house.peer.answer = answer
    for _ in range(6):
        house.send()
        house.let_pass(HOUR / 6, 60.0)
    assert Counter(name for name, _ in house.peer.kept) == {"vna": 6}
    assert tried["vna"] == 6
    assert tried["pacs"] < 6 * 15
    house.peer.answer = lambda _destination: 0
    house.let_pass(house.queue.backoff_cap_seconds + 60, 60.0)
    assert house.drained()
    assert len(house.peer.kept) == 12


def test_a_report_that_supersedes_another_arrives_behind_it_after_an_outage(house: House) -> None:
    house.peer.answer = away
    first = house.send()
    house.let_pass(2 * HOUR, 60.0)
    attempts = max(item.attempts for item in house.items(Kind.DELIVER))
    house.receive(_again(first), association="late")
    house.associations.ended("late", "released")
    house.let_pass(HOUR / 6)
    assert max(item.attempts for item in house.items(Kind.DELIVER)) <= attempts + 3
    house.peer.answer = lambda _destination: 0
    house.let_pass(house.queue.backoff_cap_seconds + 2 * STEP)
    sent = [(name, int(dcmread(BytesIO(content)).InstanceNumber)) for name, content in house.peer.kept]
    for name in ("pacs", "vna"):
        assert [number for to, number in sent if to == name] == [1, 2]


def test_the_report_that_an_urgent_one_supersedes_is_as_urgent(house: House) -> None:
    house.peer.answer = away
    first = house.send()
    house.let_pass(HOUR, 60.0)
    for _ in range(3):
        house.send()
    house.let_pass(HOUR, 60.0)
    with writing(house.engine) as conn:
        rerun.rerun(conn, first.StudyInstanceUID, house.clock(), priority=STAT)
    house.work()
    house.clock.forward(house.queue.backoff_cap_seconds + 1)  # all is due
    house.peer.answer = lambda _destination: 0
    house.work()
    house.let_pass(60.0)
    sent = [dcmread(BytesIO(content)) for name, content in house.peer.kept if name == "pacs"]
    assert sent[0].StudyInstanceUID == first.StudyInstanceUID
    assert [int(ds.InstanceNumber) for ds in sent if ds.StudyInstanceUID == first.StudyInstanceUID] == [1, 2]


def _full_disk(house: House) -> Callable[[], None]:
    """Fill the disk of a house; return what frees it."""
    full = [True]

    def link(staged: Path, target: Path) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        target.hardlink_to(staged)

    house.files = FileStore(house.files.root, 0, link=link)
    house.ingest._files = house.analyse._files = house.files
    return full.clear


def test_a_full_disk_refuses_what_comes_delivers_what_is_there_and_goes_on_when_it_is_freed(
    house: House,
) -> None:
    house.peer.answer = away
    house.send()
    house.let_pass(2 * STEP)
    house.send()
    free = _full_disk(house)
    with pytest.raises(OutOfResourcesError, match="No space left on device"):
        house.send()
    house.peer.answer = lambda _destination: 0
    house.let_pass(HOUR, 60.0)
    assert [name for name, _ in house.peer.kept] == ["pacs", "vna"]
    waiting = house.items(Kind.ANALYSE)[1]
    assert (waiting.state, waiting.attempts) == (State.SCHEDULED, 0)
    assert not list(house.files.incoming.iterdir())
    free()
    house.send()
    house.let_pass(70)
    assert house.drained()
    assert len(house.studies) == 3


def test_a_database_whose_disk_is_full_takes_nothing_in_and_goes_on_when_it_is_freed(
    house: House,
) -> None:
    if house.engine.dialect.name != "sqlite":
        pytest.skip("only SQLite can be told how large it may become")
    house.send()

    def limit(conn: Connection) -> None:
        conn.exec_driver_sql("PRAGMA max_page_count=1")  # that is: as large as it is

    event.listen(house.engine, "begin", limit)
    with pytest.raises(DatabaseError, match="full"):
        _send_for_ever(house)
    taken = len(house.studies)
    house.let_pass(HOUR, 600.0)
    event.remove(house.engine, "begin", limit)
    event.listen(house.engine, "begin", lambda conn: conn.exec_driver_sql("PRAGMA max_page_count=1073741823"))
    house.send()
    house.let_pass(2 * house.queue.lease_seconds, 20.0)
    assert house.drained()
    assert len(house.studies) == taken + 1


def _send_for_ever(house: House) -> None:
    while True:
        house.send()


@dataclass
class Outage:
    """A database that can be taken away and given back."""

    engine: Engine
    take_away: Callable[[], None]
    give_back: Callable[[], None]


@contextmanager
def _stopped_server() -> Iterator[Outage]:
    with cluster() as server:
        engine = open_engine(Db(url=server.url.render_as_string()))
        upgrade(engine)
        yield Outage(engine, server.stop, server.start)
        engine.dispose()


@contextmanager
def _locked_file(path: Path) -> Iterator[Outage]:
    url = f"sqlite:///{path}"
    engine = open_engine(Db(url=url), busy_seconds=0.05)
    upgrade(engine)
    other = open_engine(Db(url=url))
    holding: list[Any] = []

    def lock() -> None:
        holding.append(other.connect())
        holding[0].begin()  # IMMEDIATE: nobody else writes

    yield Outage(engine, lock, lambda: holding.pop().close())
    other.dispose()
    engine.dispose()


@contextmanager
def _file_away(path: Path) -> Iterator[Outage]:
    engine = open_engine(Db(url=f"sqlite:///{path}"))
    upgrade(engine)
    beside = path.with_suffix(".away")

    def take() -> None:
        engine.dispose()
        shutil.move(path, beside)
        path.mkdir()

    def give() -> None:
        path.rmdir()
        shutil.move(beside, path)

    yield Outage(engine, take, give)
    engine.dispose()


@pytest.fixture(params=["PostgreSQL stopped", "SQLite locked", "SQLite file away"])
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    if request.param == "PostgreSQL stopped":
        made = _stopped_server()
    else:
        made = (_locked_file if "locked" in request.param else _file_away)(tmp_path / "node.db")
    with made as outage:
        yield outage


def test_a_database_that_goes_and_comes_back_loses_no_study_and_no_report_is_made_twice(
    outage: Outage, tmp_path: Path
) -> None:
    house = House(outage.engine, tmp_path / "store")
    house.send()
    house.let_pass(2 * STEP)
    house.send()
    outage.take_away()
    with pytest.raises(DatabaseError):
        house.send()
    house.let_pass(5 * STEP)
    outage.give_back()
    house.send()
    house.let_pass(6 * STEP)
    assert house.drained()
    assert len(house.peer.kept) == 6


def test_a_database_that_goes_while_an_image_is_scored_and_while_a_report_is_sent(
    outage: Outage, tmp_path: Path
) -> None:
    house = House(outage.engine, tmp_path / "store")
    going = Going(outage)
    house.judge = going.judge
    house.peer.answer = going.answer
    house.send()
    house.let_pass(2 * STEP)
    assert going.still == {"analysis", "delivery"} - going.went
    for _ in range(2):
        outage.give_back()
        house.let_pass(house.queue.lease_seconds + 2 * STEP)
    assert going.went == {"analysis", "delivery"}
    assert house.drained()
    assert sorted(name for name, _ in house.peer.kept) == ["pacs", "pacs", "vna"]


@dataclass
class Going:
    """Takes the database away in the middle of the first analysis, and of the first delivery."""

    outage: Outage
    still: set[str] = field(default_factory=lambda: {"analysis", "delivery"})
    went: set[str] = field(default_factory=set)

    def judge(self, ds: Dataset) -> ImageResult:
        self._go("analysis")
        return scored(ds)

    def answer(self, _destination: Destination) -> int:
        self._go("delivery")
        return 0

    def _go(self, when: str) -> None:
        if when in self.still:
            self.still.remove(when)
            self.went.add(when)
            self.outage.take_away()


def test_a_full_disk_delays_a_study_and_uses_up_none_of_its_attempts(house: House) -> None:
    ds = chest_dataset()
    house.receive(ds)
    house.pass_quiet_time()
    put_report = house.files.put_report

    def full(_content: bytes) -> str:
        raise OutOfResourcesError("No space left on device")

    house.files.put_report = full  # type: ignore[method-assign]
    for _ in range(10):
        house.work()
        house.clock.forward(1000)
    (item,) = house.items(Kind.ANALYSE)
    assert (item.state, item.reason) == (State.SCHEDULED, "No space left on device")
    house.files.put_report = put_report  # type: ignore[method-assign]
    house.work()
    assert house.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]


def test_a_store_that_is_away_for_a_moment_does_not_fail_a_study(house: House) -> None:
    ds = chest_dataset()
    house.receive(ds)
    house.pass_quiet_time()
    (kept,) = (house.files.root / "instances").rglob("*.dcm")
    hidden = kept.rename(kept.with_suffix(".away"))
    house.work()
    hidden.rename(kept)
    house.clock.forward(1000)
    house.work()
    assert house.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]


@pytest.fixture
def read_only(house: House) -> Iterator[House]:
    """Return a house whose database takes no write, as a PostgreSQL standby or a write-protected file."""

    @event.listens_for(house.engine, "begin")
    def protect(conn: Connection) -> None:
        protected = "SET TRANSACTION READ ONLY" if conn.dialect.name == "postgresql" else "PRAGMA query_only=ON"
        conn.exec_driver_sql(protected)

    yield house
    event.remove(house.engine, "begin", protect)


def test_a_database_that_takes_no_writes_is_waited_for_and_kills_no_worker(read_only: House) -> None:
    with pytest.raises(DatabaseError, match=r"read.?only"):
        read_only.worker.step()
    with pytest.raises(DatabaseError):
        read_only.receive(chest_dataset())
