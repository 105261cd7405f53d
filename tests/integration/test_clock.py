"""A clock that is set, back or forth, whatever waits at that moment: nothing is lost, doubled or held up."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.db.engine import writing
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.types import Destination, ImageResult, Kind
from dicom_node.queue import leases
from tests.fakes import scored
from tests.integration.house import HOUR, STEP, House, away
from tests.integration.test_pipeline import QUIET


@pytest.fixture
def house(engine: Engine, tmp_path: Path) -> House:
    return House(engine, tmp_path / "store")


STEPS = {
    "back": [-3 * HOUR],
    "forth": [3 * HOUR],
    "back and forth": [-3 * HOUR, 3 * HOUR],
    "forth and back": [3 * HOUR, -3 * HOUR],
}


def _fail(_ds: Dataset) -> ImageResult:
    raise RuntimeError


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_a_clock_that_is_set_while_everything_waits_holds_up_nothing(house: House, steps: list[float]) -> None:
    house.peer.answer = away
    house.send()
    house.let_pass(4 * STEP)  # the PACS is tried, and tried again later
    house.judge = _fail
    house.send()
    house.let_pass(STEP)  # so is the analysis
    house.judge = scored
    house.send()
    house.clock.forward(QUIET + 1)
    house.gather()
    with writing(house.engine) as conn:  # a worker that dies with its lease
        assert leases.claim(conn, "dead", house.clock(), house.queue.lease_seconds, "t", [Kind.ANALYSE])
    house.send()  # and an image has just come
    house.peer.answer = lambda _destination: 0
    for step in steps:
        house.clock.forward(step)
        house.duties()
    house.let_pass(2 * house.queue.lease_seconds, 20.0)
    assert house.drained()
    assert len(house.peer.kept) == 8


@pytest.mark.parametrize("step", [-3 * HOUR, 3 * HOUR])
@pytest.mark.parametrize("when", ["analysis", "delivery"])
def test_a_clock_that_is_set_during_work_makes_no_report_twice(house: House, when: str, step: float) -> None:
    jumps = {when: step}

    def judge(ds: Dataset) -> ImageResult:
        house.clock.forward(jumps.pop("analysis", 0.0))
        return scored(ds)

    def answer(_destination: Destination) -> int:
        house.clock.forward(jumps.pop("delivery", 0.0))
        return 0

    house.judge, house.peer.answer = judge, answer
    house.send()
    house.let_pass(2 * house.queue.lease_seconds, 20.0)
    assert not jumps
    assert house.drained()


def test_a_pacs_that_let_senders_wait_is_tried_again_although_the_clock_went_back(house: House) -> None:
    def answer(_destination: Destination) -> int:
        house.clock.forward(30)
        raise DestinationAwayError("it did not answer within 30 s")

    house.peer.answer = answer
    house.send()
    house.let_pass(STEP)
    house.clock.forward(-3 * HOUR)
    house.peer.answer = lambda _destination: 0
    house.let_pass(2 * house.queue.lease_seconds, 20.0)
    assert house.drained()
