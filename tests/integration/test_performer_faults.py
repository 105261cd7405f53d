"""Each message of a performer's dialogue is lost, late or refused: a step ends once, whatever is answered."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from dicom_node.config import Db
from dicom_node.db.engine import open_engine, reading, writing
from dicom_node.db.migrate import upgrade
from dicom_node.domain.performing import TaskState
from dicom_node.domain.retrieval import Fetch, Fetched
from dicom_node.store import tasks
from tests.integration.test_performer import STEP, STUDY, Desk, desk, provider
from tests.ups_provider import UpsProvider, item

__all__ = ["desk", "provider"]

WENT = ["SCHEDULED", "IN PROGRESS"]
MOMENTS = ("before", "after")


class Nth:
    """Does something wrong at the n-th request of all."""

    def __init__(self, number: int, when: str, wrong: int | str) -> None:
        self.number, self.when, self.wrong = number, when, wrong
        self.asked: list[str] = []

    def __call__(self, what: str, when: str) -> int | str | None:
        if when == "before":
            self.asked.append(what)
        return self.wrong if (len(self.asked), when) == (self.number, self.when) else None


CLAIM = ["C-FIND", "N-GET", "IN PROGRESS", "N-SET"]
COMPLETES = [*CLAIM, "N-GET", "N-SET", "N-SET", "N-GET", "N-SET", "COMPLETED"]
CANCELS = [*CLAIM, "N-GET", "N-SET", "N-GET", "N-SET", "CANCELED"]
"""The whole dialogues; each message of the second one up to its last N-GET is in the first, too."""


def _refuse(_what: Fetch) -> Fetched:
    return Fetched(0, 0, 0, "the archive has no image of it")


def _to_the_end(desk: Desk, provider: UpsProvider, state: str, dialogue: list[str], fault: Nth) -> None:
    """Let time pass until the step has ended; a fault was one of the dialogue, and there is one report at most."""
    provider.fault = fault
    for _ in range(14):
        desk.turn()
        if desk.states() == [state.lower()]:
            break
    assert fault.asked[: fault.number] == dialogue[: fault.number]
    assert len(fault.asked) > fault.number or not fault.number
    assert provider.items[STEP].went == [*WENT, state]
    assert desk.states() == [state.lower()]


@pytest.mark.parametrize(("number", "when"), [(0, ""), *product(range(1, len(COMPLETES) + 1), MOMENTS)])
def test_whichever_message_is_lost_the_step_is_completed_once(
    desk: Desk, provider: UpsProvider, number: int, when: str
) -> None:
    _to_the_end(desk, provider, "COMPLETED", COMPLETES, fault := Nth(number, when, "abort"))
    assert number or fault.asked == COMPLETES
    assert desk.site.count("reports") == 1


@pytest.mark.parametrize(("number", "when"), [(0, ""), *product(range(7, len(CANCELS) + 1), MOMENTS)])
def test_whichever_message_is_lost_the_step_is_canceled_once(
    desk: Desk, provider: UpsProvider, number: int, when: str
) -> None:
    desk.settings["input_attempts"], desk.fetches = 1, _refuse
    desk.start()
    _to_the_end(desk, provider, "CANCELED", CANCELS, fault := Nth(number, when, "abort"))
    assert number or fault.asked == CANCELS


@pytest.mark.parametrize(
    ("number", "status"),
    [*product(range(1, len(COMPLETES) + 1), [0x0110]), *product([1, 4, 9, 10], [0xC000])],
)
def test_whichever_message_is_refused_once_the_step_is_completed_once(
    desk: Desk, provider: UpsProvider, number: int, status: int
) -> None:
    _to_the_end(desk, provider, "COMPLETED", COMPLETES, Nth(number, "before", status))
    assert desk.site.count("reports") == 1


def test_a_provider_that_does_not_let_this_node_claim_is_left_after_five_attempts(
    desk: Desk, provider: UpsProvider
) -> None:
    provider.fault = lambda what, _when: 0x0124 if what == "IN PROGRESS" else None
    desk.turns(6)
    assert desk.states() == ["lost"]
    assert "answered 0x0124 to N-ACTION to IN PROGRESS: not authorised; it must allow" in desk.reason()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_claim_that_is_answered_too_late_is_known_to_be_this_nodes(
    desk: Desk, provider: UpsProvider, when: str
) -> None:
    desk.settings["timeout"] = 0.5
    desk.start()
    provider.fault = Nth(CLAIM.index("IN PROGRESS") + 1, when, "silence")
    desk.perform()
    assert "did not answer within 0.5 s" in desk.reason()
    desk.site.clock.forward(40)
    desk.turns(8)
    assert provider.items[STEP].went == [*WENT, "COMPLETED"]
    assert desk.site.count("reports") == 1


def _bring_to(desk: Desk, state: TaskState) -> None:
    """Do what a node does until its task is in a state, and nothing in it."""
    desk.perform.poll()
    for _ in range(20):
        if desk.states() == [state]:
            return
        if desk.states() == [TaskState.WAITING]:
            desk.site.clock.forward(40)
            desk.site.gather()
            desk.site.work()
        with writing(desk.site.engine) as conn:
            task = tasks.claim(conn, "ris", desk.site.clock(), 60, "token")
        if task is None:
            desk.site.clock.forward(40)
        else:
            desk.perform.advance(task)
    raise AssertionError(f"it never was {state}, but {desk.states()}: {desk.reason()}")


def _another(provider: UpsProvider) -> None:
    provider.items[STEP].transaction = "2.25.1"
    provider.items[STEP].ds.ProcedureStepState = "IN PROGRESS"


def _gone(provider: UpsProvider) -> None:
    del provider.items[STEP]


def _set_back(provider: UpsProvider) -> None:
    provider.items[STEP].ds.ProcedureStepState = "SCHEDULED"


AFTER_CLAIM = [
    TaskState.FETCHING,
    TaskState.WAITING,
    TaskState.DELIVERING,
    TaskState.COMPLETING,
    TaskState.CANCELING,
]


@pytest.mark.parametrize(
    ("spoil", "states", "reason"),
    [
        (_another, [TaskState.CLAIMING, *AFTER_CLAIM], "performed under another Transaction UID"),
        (_gone, [TaskState.CLAIMING, *AFTER_CLAIM], "there is no such item"),
        (_set_back, AFTER_CLAIM, "it is not in progress"),
    ],
    ids=["another Transaction UID", "gone", "scheduled again"],
)
def test_a_step_that_is_not_this_nodes_any_more_is_let_go_in_whatever_state_it_is(
    request: pytest.FixtureRequest,
    desk: Desk,
    provider: UpsProvider,
    spoil: Callable[[UpsProvider], None],
    states: list[TaskState],
    reason: str,
    tmp_path: Path,
) -> None:
    for number, state in enumerate(states):
        if number:
            engine = open_engine(Db(url=f"sqlite:///{tmp_path / f'{number}.db'}"))
            request.addfinalizer(engine.dispose)
            upgrade(engine)
            desk = Desk(engine, tmp_path / f"store-{number}", provider)
        provider.put(item(1, STUDY))
        if state is TaskState.CANCELING:
            desk.settings["input_attempts"], desk.fetches = 1, _refuse
            desk.start()
        _bring_to(desk, state)
        spoil(provider)
        for _ in range(4):
            with writing(desk.site.engine) as conn:
                task = tasks.claim(conn, "ris", desk.site.clock(), 60, "token")
            if task is not None:
                desk.perform.advance(task)
            desk.site.clock.forward(70)
        assert desk.states() == ["lost"], state
        assert reason in desk.reason()
        with reading(desk.site.engine) as conn:
            held = conn.exec_driver_sql("SELECT count(*) FROM expected WHERE state IN ('open', 'complete')")
            assert held.scalar_one() == 0, state
        assert "COMPLETED" not in (provider.items[STEP].went if STEP in provider.items else [])


def test_where_a_provider_grants_one_claim_twice_the_first_lets_go_and_the_step_is_completed_once(
    desk: Desk, provider: UpsProvider, tmp_path: Path
) -> None:
    provider.grants_twice = True
    engine = open_engine(Db(url=f"sqlite:///{tmp_path / 'other.db'}"))
    upgrade(engine)
    other = Desk(engine, tmp_path / "other", provider)
    desk.perform.poll()
    other.perform.poll()
    _bring_to(desk, TaskState.FETCHING)
    first = provider.items[STEP].transaction
    _bring_to(other, TaskState.FETCHING)
    assert provider.items[STEP].transaction != first
    for one in (desk, other, desk, other):
        one.turns(4)
    assert provider.items[STEP].went == [*WENT, "COMPLETED"]
    assert (desk.states(), other.states()) == (["lost"], ["completed"])
    assert desk.fetched == []
    engine.dispose()
