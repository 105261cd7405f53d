"""A backfill keeps to its hours, its rate and the node's room, and goes on after a kill at any point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, insert

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    DestinationAwayError,
    DestinationRefusedError,
    NodeError,
    OutOfResourcesError,
)
from dicom_node.domain.limits import Window
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.domain.types import Kind
from dicom_node.domain.urgency import HIGH, LOW
from dicom_node.pipeline import fetching, sweep
from dicom_node.pipeline.backfill import LEASE_SECONDS, Backfill
from dicom_node.queue import items
from dicom_node.store import retrievals
from tests.fakes import ManualClock

ARCHIVE = Archive("pacs", "PACS", "10.0.0.5", 104)


class Killed(BaseException):
    """The process ends here."""


class House:
    """A node whose archive does as it is told."""

    def __init__(self, engine: Engine, archive: Archive = ARCHIVE) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.asked: list[str] = []
        self.answer: Callable[[str], Fetched] = lambda _study: Fetched(2, 0, 2)
        self.announced: list[tuple[str, int, bool]] = []
        self.archive = archive

    def want(self, *studies: str, priority: int = LOW) -> int:
        return fetching.ask_for(self.engine, "pacs", studies, priority, self.clock())

    def run(self) -> int:
        return Backfill(
            self.engine,
            {"pacs": self.archive},
            self._fetch,
            self.clock,
            announce=lambda *said: self.announced.append(said),
        )()

    def _fetch(self, archive: Archive, what: Fetch) -> Fetched:
        self.asked.append(what.study_instance_uid)
        return self.answer(what.study_instance_uid)

    def counts(self) -> dict[str, int]:
        (row,) = fetching.progress(self.engine)["archives"]
        return {state: row[state] for state in retrievals.STATES if row[state]}

    def reason(self) -> str:
        return str(fetching.progress(self.engine)["failures"][0]["reason"])


@pytest.fixture
def house(engine: Engine) -> House:
    return House(engine)


def _raise(error: BaseException) -> Callable[[str], Fetched]:
    def answer(_study: str) -> Fetched:
        raise error

    return answer


def test_every_study_is_fetched_once_in_order_and_announced_with_its_priority(house: House) -> None:
    assert house.want("1.1", "1.2", "1.1") == 2
    assert house.want("1.3", priority=HIGH) == 1
    assert house.run() == 3
    assert house.run() == 0
    assert house.asked == ["1.3", "1.1", "1.2"]
    assert house.counts() == {"fetched": 3}
    assert house.announced[:2] == [("1.3", HIGH, True), ("1.3", HIGH, False)]


def test_asking_again_leaves_what_was_fetched_alone_and_tries_again_what_failed(house: House) -> None:
    house.want("1.1")
    house.run()
    house.answer = lambda _study: Fetched(0, 0, 0, "it has none")
    house.want("1.2")
    house.run()
    assert house.reason() == "it has none"
    house.answer = lambda _study: Fetched(1, 0, 1)
    assert house.want("1.1", "1.2") == 1
    house.run()
    assert house.counts() == {"fetched": 2}


def test_killed_in_the_middle_it_goes_on_with_the_rest_and_later_with_that_study(house: House) -> None:
    house.want("1.1", "1.2", "1.3")
    answers = iter([Fetched(1, 0, 1)])

    def killed_at_the_second(_study: str) -> Fetched:
        for fetched in answers:
            return fetched
        raise Killed

    house.answer = killed_at_the_second
    with pytest.raises(Killed):
        house.run()
    assert house.counts() == {"due": 1, "fetching": 1, "fetched": 1}
    house.answer = lambda _study: Fetched(1, 0, 1)
    house.run()
    assert house.counts() == {"fetching": 1, "fetched": 2}
    house.clock.forward(LEASE_SECONDS)
    house.run()
    assert house.counts() == {"fetched": 3}
    assert house.asked == ["1.1", "1.2", "1.3", "1.2"]


def test_a_worker_whose_lease_ran_out_changes_nothing_any_more(house: House) -> None:
    house.want("1.1")
    with writing(house.engine) as conn:
        late = retrievals.claim(conn, "pacs", house.clock(), 10.0, "a")
    assert late is not None
    house.clock.forward(10.0)
    house.run()
    with writing(house.engine) as conn:
        assert not retrievals.finish(conn, late, retrievals.FAILED, house.clock())
    assert house.counts() == {"fetched": 1}


def test_outside_its_hours_nothing_is_fetched(house: House) -> None:
    local = datetime(2026, 1, 2, 12, 0).astimezone()
    house.clock.at = local.astimezone(UTC)
    house.archive = replace(ARCHIVE, hours=(Window.parse("22:00-06:00"),))
    house.want("1.1")
    assert house.run() == 0
    house.clock.forward(10 * 3600)
    assert house.run() == 1


def test_no_more_images_a_minute_than_allowed(house: House) -> None:
    house.archive = replace(ARCHIVE, images_per_minute=4.0)
    house.want("1.1", "1.2", "1.3", "1.4")
    assert house.run() == 2
    house.clock.forward(59.0)
    assert house.run() == 0
    house.clock.forward(1.0)
    assert house.run() == 2


def test_a_rate_below_one_a_minute_is_kept_too(house: House) -> None:
    house.archive = replace(ARCHIVE, images_per_minute=0.5)
    house.want("1.1", "1.2")
    assert house.run() == 1
    house.clock.forward(100.0)
    assert house.run() == 0
    house.clock.forward(20.0)
    assert house.run() == 1


def test_while_the_node_has_enough_to_do_nothing_is_fetched(house: House) -> None:
    house.archive = replace(ARCHIVE, studies_at_a_time=1)
    with writing(house.engine) as conn:
        item = items.schedule(conn, Kind.ANALYSE, "1.9", 1, house.clock())
    assert item is not None
    house.want("1.1")
    assert house.run() == 0


def test_an_archive_that_is_away_is_left_alone_for_longer_and_longer(house: House) -> None:
    house.answer = _raise(DestinationAwayError("it is away"))
    house.want("1.1", "1.2")
    assert house.run() == 1
    assert house.run() == 1
    assert house.run() == 0
    house.clock.forward(30.0)
    assert house.run() == 1
    house.answer = lambda _study: Fetched(1, 0, 1)
    house.clock.forward(900.0)
    assert house.run() == 2
    assert house.counts() == {"fetched": 2}


@pytest.mark.parametrize("error", [DestinationRefusedError("it will not")])
def test_what_an_archive_refuses_fails_with_the_reason(house: House, error: NodeError) -> None:
    house.answer = _raise(error)
    house.want("1.1")
    house.run()
    assert (house.counts(), house.reason()) == ({"failed": 1}, "it will not")


def test_a_full_disk_uses_up_no_study(house: House) -> None:
    house.answer = _raise(OutOfResourcesError("full"))
    house.want("1.1")
    house.run()
    assert house.counts() == {"due": 1}


def test_half_a_study_is_tried_again_and_fails_in_the_end(house: House) -> None:
    house.answer = lambda _study: Fetched(1, 1, 2, "one is missing")
    house.want("1.1")
    for _ in range(5):
        house.run()
        house.clock.forward(900.0)
    assert (len(house.asked), house.counts(), house.reason()) == (5, {"failed": 1}, "one is missing")


def _answer(house: House, study: str) -> None:
    report = {
        "study_instance_uid": study,
        "revision": 1,
        "bank_hash": "",
        "sop_instance_uid": f"{study}.9",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.34",
        "series_instance_uid": f"{study}.8",
        "digest": "0" * 64,
        "verdict": "not analysed",
        "result": {},
        "created_at": house.clock(),
    }
    with writing(house.engine) as conn:
        conn.execute(insert(schema.reports).values(report))


def test_a_study_that_is_answered_already_is_skipped(house: House) -> None:
    _answer(house, "1.1")
    house.want("1.1", "1.2")
    house.run()
    assert (house.asked, house.counts()) == (["1.2"], {"fetched": 1, "skipped": 1})


def test_a_study_of_which_a_part_came_and_was_answered_is_fetched_whole_all_the_same(house: House) -> None:
    house.want("1.1")
    house.answer = _raise(DestinationAwayError("it went away; 1 images were taken before that"))
    house.run()
    house.clock.forward(3600.0)
    _answer(house, "1.1")  # nobody held it open any longer
    house.answer = lambda _study: Fetched(2, 0, 2)
    house.run()
    assert (house.asked, house.counts()) == (["1.1", "1.1"], {"fetched": 1})


def test_what_is_canceled_is_not_fetched(house: House) -> None:
    house.want("1.1", "1.2")
    assert fetching.cancel(house.engine, "other", house.clock()) == 0
    assert fetching.cancel(house.engine, "pacs", house.clock()) == 2
    assert house.run() == 0
    assert house.counts() == {"canceled": 2}
    with reading(house.engine) as conn:
        assert retrievals.stored_since(conn, "pacs", house.clock()) == 0


def test_a_clock_that_is_set_back_holds_up_neither_what_is_due_nor_what_was_begun_nor_the_rate(
    engine: Engine,
) -> None:
    house = House(engine, replace(ARCHIVE, images_per_minute=2))
    house.want("1.1", "1.2")
    house.answer = _raise(DestinationAwayError("the archive is away"))
    house.run()  # due later
    house.answer = _raise(Killed())
    with pytest.raises(Killed):
        house.run()  # begun, and the worker is gone
    house.answer = lambda _study: Fetched(2, 0, 2)
    house.want("1.3")
    assert house.run() == 1  # as many as may be in a minute
    house.clock.forward(-10_800)
    assert sweep.follow_the_clock(engine, house.clock, 60.0) == 3
    for _ in range(4):
        house.clock.forward(61)
        house.run()
    assert house.counts() == {"fetched": 3}
