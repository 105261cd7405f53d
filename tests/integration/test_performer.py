"""Procedure steps of a provider written from the standard, performed state by state, with crashes and lost answers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.config import Db
from dicom_node.db.engine import open_engine, reading, writing
from dicom_node.db.migrate import upgrade
from dicom_node.deliver import association
from dicom_node.domain.errors import IllegalTransitionError
from dicom_node.domain.performing import TRANSITIONS, TaskState, UpsSource, check_transition
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.pipeline import perform
from dicom_node.pipeline.perform import Perform
from dicom_node.pipeline.perform_states import States
from dicom_node.pipeline.sweep import follow_the_clock
from dicom_node.store import reports, tasks
from dicom_node.worklist.ups import Ups
from tests.integration.test_pipeline import Site
from tests.phantoms import chest_dataset
from tests.ups_provider import UpsProvider, item, serving

STUDY = "2.25.4711"
STEP = "2.25.771"
UIDS = (f"2.25.555{n}" for n in count())


class Crash(BaseException):
    """A kill: nobody catches it."""


class Desk:
    """A node that performs, whose archive sends one image of each study; it may crash and start anew."""

    def __init__(self, engine: Engine, root: Path, provider: UpsProvider) -> None:
        self.site = Site(engine, root)
        self.provider = provider
        self.fetched: list[Fetch] = []
        self.fetches: Callable[[Fetch], Fetched] = self.bring
        self.settings: dict[str, object] = {"timeout": 5.0, "poll_seconds": 150.0}
        self.start()

    def start(self) -> None:
        """Begin anew with nothing but the database."""
        source = UpsSource("ris", "MANAGER", "127.0.0.1", self.provider.port, **self.settings)  # type: ignore[arg-type]
        connect = partial(association.associated, calling_ae_title="NODE", maximum_pdu_size=16384)
        ups, site = Ups(connect, "NODE"), self.site
        states = States(
            site.engine,
            source,
            ups,
            lambda _archive, what: self.fetches(what),
            site.clock,
            archives={"pacs": Archive("pacs", "ARCHIVE", "127.0.0.1", 104)},
            destinations=site.destinations,
            station=("NODE", "L", "NODE"),
        )
        self.perform = Perform(site.engine, source, ups, states, site.clock, lambda: next(UIDS))

    def bring(self, what: Fetch) -> Fetched:
        self.fetched.append(what)
        uid = f"{what.study_instance_uid}.1"
        self.site.receive(
            chest_dataset(StudyInstanceUID=what.study_instance_uid, SOPInstanceUID=uid), association=uid
        )
        self.site.associations.ended(uid, "released")
        return Fetched(1, 0, 1)

    def turn(self) -> None:
        """Let a while pass in which everything does what it does."""
        self.perform()
        self.site.clock.forward(40)
        self.site.gather()
        self.site.work()

    def turns(self, number: int = 8) -> None:
        for _ in range(number):
            self.turn()

    def states(self) -> list[str]:
        with reading(self.site.engine) as conn:
            return [row["state"] for row in tasks.listing(conn)]

    def reason(self) -> str:
        with reading(self.site.engine) as conn:
            return str(tasks.listing(conn)[0]["reason"])


@pytest.fixture
def provider() -> Iterator[UpsProvider]:
    with serving(UpsProvider()) as provider:
        provider.put(item(1, STUDY))
        yield provider


@pytest.fixture
def desk(_sqlite_template: Path, tmp_path: Path, provider: UpsProvider) -> Iterator[Desk]:
    path = tmp_path / "node.db"
    shutil.copyfile(_sqlite_template, path)
    engine = open_engine(Db(url=f"sqlite:///{path}"))
    yield Desk(engine, tmp_path / "store", provider)
    engine.dispose()


@pytest.fixture
def any_desk(engine: Engine, tmp_path: Path, provider: UpsProvider) -> Desk:
    """Return one on each database, where its SQL matters."""
    return Desk(engine, tmp_path / "store", provider)


def test_a_scheduled_step_is_claimed_fetched_analysed_delivered_and_completed(
    any_desk: Desk, provider: UpsProvider
) -> None:
    desk = any_desk
    desk.turns()
    held = provider.items[STEP]
    assert held.went == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert held.progress[:2] == ["0", "10"]
    assert held.progress[-1] == "100"
    assert desk.fetched == [Fetch(STUDY)]
    with reading(desk.site.engine) as conn:
        (report,) = reports.of_study(conn, STUDY)
    done = held.ds.UnifiedProcedureStepPerformedProcedureSequence[0]
    (output,) = done.OutputInformationSequence
    assert output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.sop_instance_uid
    assert list(output.DICOMRetrievalSequence[0].RetrieveAETitle) == ["PACS", "VNA"]
    assert done.PerformedWorkitemCodeSequence[0].CodeValue == "110004"
    assert perform.told(desk.site.engine, 10)[0]["state"] == "completed"


@pytest.mark.parametrize("asked", range(1, 12))
def test_killed_at_any_exchange_a_fresh_performer_completes_the_step_once(
    desk: Desk, provider: UpsProvider, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges = count(1)
    states = States.__call__
    moved = tasks.move

    def dying(*arguments: object, **more: object) -> object:
        if next(exchanges) == asked:
            raise Crash
        return moved(*arguments, **more)  # type: ignore[arg-type]

    def dying_before(self: States, task: tasks.Task) -> object:
        if next(exchanges) == asked:
            raise Crash
        return states(self, task)

    monkeypatch.setattr(tasks, "move", dying)
    monkeypatch.setattr(States, "__call__", dying_before)
    for _ in range(16):
        try:
            desk.turn()
        except Crash:
            desk.site.clock.forward(301)  # its lease runs out
            desk.start()
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert desk.site.count("reports") == 1
    assert desk.states() == ["completed"]


def test_of_two_nodes_one_performs_a_step_and_the_other_drops_it(
    tmp_path: Path, provider: UpsProvider, desk: Desk
) -> None:
    other_engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'other.db'}"))
    upgrade(other_engine)
    other = Desk(other_engine, tmp_path / "other", provider)
    desk.perform.poll()
    other.perform.poll()  # both have seen it SCHEDULED and decided to claim it
    for one in (desk, other, desk, other):
        one.turns(4)
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]
    assert sorted([*desk.states(), *other.states()]) == ["completed", "lost"]
    assert other.fetched == []
    other_engine.dispose()


def test_a_step_taken_from_this_node_under_another_transaction_is_let_go(
    desk: Desk, provider: UpsProvider
) -> None:
    desk.perform()
    provider.items[STEP].transaction = "2.25.1"
    desk.turns(4)
    assert desk.states() == ["lost"]
    assert "another Transaction UID" in desk.reason()
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS"]


def test_a_cancellation_asked_for_before_the_analysis_stops_the_step(desk: Desk, provider: UpsProvider) -> None:
    desk.fetches = lambda _what: Fetched(0, 1, 1, "one image failed")
    desk.perform()
    assert perform.ask_to_cancel(desk.site.engine, STEP, desk.site.clock())
    desk.turns(3)
    assert provider.state(STEP) == "CANCELED"
    assert desk.states() == ["canceled"]


def test_a_cancellation_asked_for_too_late_is_not_followed(desk: Desk, provider: UpsProvider) -> None:
    desk.turn()
    perform.ask_to_cancel(desk.site.engine, STEP, desk.site.clock())
    desk.turns()
    assert provider.state(STEP) == "COMPLETED"


def test_steps_for_others_are_left_alone(desk: Desk, provider: UpsProvider) -> None:
    provider.items[STEP].ds.ScheduledWorkitemCodeSequence[0].CodeValue = "110005"
    provider.put(item(2, "2.25.2"), item(3, "2.25.3"))
    provider.items["2.25.772"].ds.InputReadinessState = "INCOMPLETE"
    desk.turns(2)
    assert [held.went[-1] for held in provider.items.values()] == ["SCHEDULED", "SCHEDULED", "COMPLETED"]


def test_the_urgent_go_first_and_no_more_are_claimed_than_there_is_room_for(
    desk: Desk, provider: UpsProvider
) -> None:
    provider.put(item(2, "2.25.2"), item(3, "2.25.3", priority="HIGH"))
    desk.settings["items_at_a_time"] = 1
    desk.start()
    desk.perform()
    assert [held.went[-1] for held in provider.items.values()] == ["SCHEDULED", "SCHEDULED", "IN PROGRESS"]
    desk.turns(30)
    assert {held.went[-1] for held in provider.items.values()} == {"COMPLETED"}


@pytest.mark.parametrize(("filters", "to"), [(True, "5.1"), (False, "5")])
def test_event_reports_are_asked_for_by_filter_or_for_all(
    desk: Desk, provider: UpsProvider, filters: bool, to: str
) -> None:
    provider.filters = filters
    desk.settings["mode"] = "subscribe"
    desk.start()
    desk.perform()
    ((title, instance),) = provider.subscribers
    assert (title, instance.partition("34.")[2]) == ("NODE", to)


def test_a_provider_that_is_away_is_asked_again(desk: Desk, provider: UpsProvider) -> None:
    provider.fault = lambda _what, _when: 0x0110
    desk.turns(2)
    assert provider.items[STEP].went == ["SCHEDULED"]
    provider.fault = lambda _what, _when: None
    desk.turns()
    assert provider.state(STEP) == "COMPLETED"


def test_a_clock_that_is_set_back_holds_up_neither_the_steps_nor_the_questions(
    any_desk: Desk, provider: UpsProvider
) -> None:
    desk = any_desk
    desk.fetches = lambda _what: Fetched(0, 1, 1, "one image failed")
    desk.turns(4)  # it waits for its next attempt
    provider.put(item(2, "2.25.2"))
    desk.perform.poll()
    with writing(desk.site.engine) as conn:  # a worker that dies with its lease
        assert tasks.claim(conn, "ris", desk.site.clock(), 60.0, "dead")
    desk.site.clock.forward(-10_800)
    provider.put(item(3, "2.25.3"))
    desk.fetches = desk.bring
    follow_the_clock(desk.site.engine, desk.site.clock, 60.0)
    desk.turns(6)
    assert [held.went[-1] for held in provider.items.values()] == ["COMPLETED"] * 3


def test_nothing_of_the_patient_is_in_the_database(desk: Desk) -> None:
    desk.turns()
    with reading(desk.site.engine) as conn:
        assert "nwald" not in str(conn.exec_driver_sql("SELECT * FROM tasks").all())


def test_no_state_follows_a_final_one() -> None:
    for before, after in TRANSITIONS.items():
        assert bool(after) is (before not in (TaskState.COMPLETED, TaskState.CANCELED, TaskState.LOST))
    with pytest.raises(IllegalTransitionError, match="allows: fetching, lost"):
        check_transition(TaskState.CLAIMING, TaskState.COMPLETED)


def test_a_worker_whose_lease_ran_out_changes_nothing(any_desk: Desk) -> None:
    desk = any_desk
    desk.perform.poll()
    with writing(desk.site.engine) as conn:
        first = tasks.claim(conn, "ris", desk.site.clock(), 1.0, "first")
    desk.site.clock.forward(2)
    with writing(desk.site.engine) as conn:
        second = tasks.claim(conn, "ris", desk.site.clock(), 1.0, "second")
        assert first is not None
        assert second is not None
        assert not tasks.move(conn, first, TaskState.LOST, desk.site.clock())
        assert tasks.move(conn, second, TaskState.FETCHING, desk.site.clock())
