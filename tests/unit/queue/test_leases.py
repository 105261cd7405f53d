from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, select

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import LeaseLostError
from dicom_node.domain.states import State
from dicom_node.domain.types import Done, Kind, Lease, Outcome, Refuse, Retry
from dicom_node.queue import items, leases

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def schedule(conn: Connection, study: str = "1.2.3", at: datetime = T0, priority: int = 5) -> int:
    return items.schedule(conn, Kind.ANALYSE, study, 1, at, priority=priority)


def claim(conn: Connection, now: datetime = T0, fence: str = "fence", owner: str = "worker") -> Lease:
    lease = leases.claim(conn, owner, now, 60, fence)
    assert lease is not None
    return lease


def row(conn: Connection, item_id: int) -> tuple[object, ...]:
    return tuple(conn.execute(select(schema.work_items).where(schema.work_items.c.id == item_id)).one())


def history(conn: Connection) -> list[str]:
    return list(conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id)).scalars())


def test_a_claim_is_in_progress_and_counted(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        lease = leases.claim(conn, "host:1", T0, 60, "token")
        assert lease is not None
        assert (lease.token, lease.owner, lease.until) == ("token", "host:1", T0 + 60 * SECOND)
        assert (lease.item.id, lease.item.state, lease.item.attempts) == (number, State.IN_PROGRESS, 1)
        assert items.get(conn, number) == lease.item
        assert history(conn) == ["workitem.scheduled", "workitem.claimed"]


def test_an_item_is_claimed_once(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        claim(conn)
        assert leases.claim(conn, "other", T0, 60, "token 2") is None


def test_nothing_is_claimed_before_it_is_due(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn, at=T0 + SECOND)
        assert leases.claim(conn, "worker", T0, 60, "token") is None
        assert leases.claim(conn, "worker", T0 + SECOND, 60, "token") is not None


def test_only_the_kinds_asked_for_are_claimed(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        assert leases.claim(conn, "worker", T0, 60, "token", kinds=(Kind.DELIVER,)) is None
        assert leases.claim(conn, "worker", T0, 60, "token", kinds=()) is None
        assert leases.claim(conn, "worker", T0, 60, "token", kinds=(Kind.DELIVER, Kind.ANALYSE)) is not None


def test_the_urgent_goes_first_then_the_longest_due_then_the_oldest(engine: Engine) -> None:
    with writing(engine) as conn:
        later = schedule(conn, "1.1", at=T0 + SECOND)
        tie_1 = schedule(conn, "1.2")
        tie_2 = schedule(conn, "1.3")
        urgent = schedule(conn, "1.4", at=T0 + 2 * SECOND, priority=1)
        order = [claim(conn, T0 + 5 * SECOND, str(n)).item.id for n in range(4)]
    assert order == [urgent, tie_1, tie_2, later]


def test_done_completes_an_item(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        assert leases.acknowledge(conn, claim(conn), Done("below threshold"), T0) is State.COMPLETED
        item = items.get(conn, number)
        assert (item.state, item.reason) == (State.COMPLETED, "below threshold")
        assert history(conn)[-1] == "workitem.completed"


def test_retry_schedules_an_item_for_later_with_the_reason(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        later = T0 + 9 * SECOND
        assert leases.acknowledge(conn, claim(conn), Retry("PACS away"), T0, later) is State.SCHEDULED
        item = items.get(conn, number)
        assert (item.state, item.reason, item.available_at) == (State.SCHEDULED, "PACS away", later)
        assert leases.claim(conn, "worker", T0, 60, "again") is None
        again = claim(conn, later, "again")
        assert (again.item.attempts, again.item.reason) == (2, "PACS away")
        assert history(conn)[-2:] == ["workitem.retry", "workitem.claimed"]


def test_a_retry_that_is_not_counted_uses_up_no_attempt(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        leases.acknowledge(conn, claim(conn), Retry("disk full"), T0, T0, counted=False)
        assert claim(conn).item.attempts == 1


def test_a_later_revision_is_analysed_after_the_earlier_one_and_delivered_whenever_it_is_ready(
    engine: Engine,
) -> None:
    with writing(engine) as conn:
        first = items.schedule(conn, Kind.ANALYSE, "1.2.3", 1, T0 + timedelta(seconds=9))
        second = items.schedule(conn, Kind.ANALYSE, "1.2.3", 2, T0, priority=1)
        other = items.schedule(conn, Kind.ANALYSE, "1.2.4", 2, T0)
        deliver = items.schedule(conn, Kind.DELIVER, "1.2.3", 2, T0, destination="pacs")
        assert [claim(conn, fence=f"t{n}").item.id for n in range(2)] == [other, deliver]
        assert leases.claim(conn, "worker", T0, 60, "t3") is None
        lease = claim(conn, T0 + timedelta(seconds=9), "t4")
        assert lease.item.id == first
        leases.acknowledge(conn, lease, Refuse("no"), T0 + timedelta(seconds=10))
        assert claim(conn, T0 + timedelta(seconds=10), "t5").item.id == second


def test_a_retry_without_a_moment_is_a_mistake_of_the_caller(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        lease = claim(conn)
        with pytest.raises(ValueError, match="next attempt"):
            leases.acknowledge(conn, lease, Retry("PACS away"), T0)
        assert items.get(conn, lease.item.id).state is State.IN_PROGRESS


def test_refuse_fails_an_item_with_the_reason(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        assert leases.acknowledge(conn, claim(conn), Refuse("0xA900"), T0) is State.FAILED
        item = items.get(conn, number)
        assert (item.state, item.reason) == (State.FAILED, "0xA900")
        assert leases.claim(conn, "worker", T0 + SECOND, 60, "again") is None


@pytest.mark.parametrize("outcome", [Done(), Retry("x"), Refuse("x")])
def test_a_late_acknowledgement_by_an_expired_lease_changes_nothing(engine: Engine, outcome: Outcome) -> None:
    late = T0 + 61 * SECOND
    with writing(engine) as conn:
        number = schedule(conn)
        old = claim(conn, fence="old")
        before = (row(conn, number), history(conn))
    with writing(engine) as conn, pytest.raises(LeaseLostError):  # nobody has taken it yet
        leases.acknowledge(conn, old, outcome, late, late)
    with writing(engine) as conn:
        assert (row(conn, number), history(conn)) == before
        assert leases.rescue(conn, late) == 1
        before = (row(conn, number), history(conn))
    with writing(engine) as conn, pytest.raises(LeaseLostError):  # it waits for someone else
        leases.acknowledge(conn, old, outcome, late, late)
    with writing(engine) as conn:
        assert (row(conn, number), history(conn)) == before
        new = claim(conn, late, fence="new", owner="other")
        before = (row(conn, number), history(conn))
    with writing(engine) as conn, pytest.raises(LeaseLostError):  # someone else works on it
        leases.acknowledge(conn, old, outcome, T0, late)
    with writing(engine) as conn:
        assert (row(conn, number), history(conn)) == before
        assert leases.acknowledge(conn, new, Done(), late) is State.COMPLETED


def test_an_item_is_acknowledged_once(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        lease = claim(conn)
        leases.acknowledge(conn, lease, Done(), T0)
        with pytest.raises(LeaseLostError):
            leases.acknowledge(conn, lease, Refuse("x"), T0)
        assert items.get(conn, lease.item.id).state is State.COMPLETED


def test_a_token_is_good_for_its_own_item_only(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn, "1.1")
        schedule(conn, "1.2")
        first, second = claim(conn, fence="1"), claim(conn, fence="2")
        with pytest.raises(LeaseLostError):
            leases.acknowledge(conn, replace(first, token=second.token), Done(), T0)


def test_a_heartbeat_keeps_a_lease_from_being_rescued(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        lease = leases.heartbeat(conn, claim(conn), T0 + 40 * SECOND, 60)
        assert lease.until == T0 + 100 * SECOND
        assert not leases.expired(conn, T0 + 70 * SECOND)
        assert leases.rescue(conn, T0 + 70 * SECOND) == 0
        assert leases.acknowledge(conn, lease, Done(), T0 + 90 * SECOND) is State.COMPLETED


def test_a_lease_that_ran_out_can_be_extended_while_nobody_took_it(engine: Engine) -> None:
    with writing(engine) as conn:
        schedule(conn)
        lease = leases.heartbeat(conn, claim(conn), T0 + 70 * SECOND, 60)
        assert leases.rescue(conn, T0 + 70 * SECOND) == 0
        assert leases.acknowledge(conn, lease, Done(), T0 + 71 * SECOND) is State.COMPLETED


def test_a_heartbeat_after_the_rescue_says_that_the_lease_is_lost(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        lease = claim(conn)
        leases.rescue(conn, T0 + 60 * SECOND)
        before = row(conn, number)
        with pytest.raises(LeaseLostError, match="worker on work item"):
            leases.heartbeat(conn, lease, T0 + 60 * SECOND, 60)
        assert row(conn, number) == before


def test_a_rescue_gives_back_what_a_dead_worker_held_and_nothing_else(engine: Engine) -> None:
    with writing(engine) as conn:
        for study in ("1.1", "1.2", "1.3"):
            schedule(conn, study)
        dead, alive = claim(conn, fence="dead", owner="host:7"), claim(conn, T0 + 30 * SECOND, fence="alive")
        now = T0 + 60 * SECOND
        assert leases.expired(conn, now)
        assert leases.rescue(conn, now) == 1
        item = items.get(conn, dead.item.id)
        assert (item.state, item.attempts, item.available_at) == (State.SCHEDULED, 1, now)
        assert "host:7" in item.reason
        assert items.get(conn, alive.item.id).state is State.IN_PROGRESS
        assert history(conn)[-1] == "workitem.expired"
        assert not leases.expired(conn, now)
        assert leases.rescue(conn, now) == 0


def test_eight_workers_claim_two_hundred_items_each_once(engine: Engine) -> None:
    with writing(engine) as conn:
        wanted = {schedule(conn, f"1.2.{n}") for n in range(1, 201)}
    start = threading.Barrier(8)

    def work(number: int) -> list[int]:
        start.wait(30)
        taken = []
        while True:
            with writing(engine) as conn:
                lease = leases.claim(conn, f"worker {number}", T0, 60, str(uuid4()))
            if lease is None:
                return taken
            taken.append(lease.item.id)

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(i for ids in pool.map(work, range(8)) for i in ids)
    assert set(taken) == wanted
    assert set(taken.values()) == {1}
    with reading(engine) as conn:
        assert items.counts(conn)["analyse", "IN_PROGRESS"] == 200
        assert {item.attempts for item in items.listing(conn, limit=300)} == {1}


def test_of_many_who_rescue_at_once_each_item_is_rescued_once(engine: Engine) -> None:
    with writing(engine) as conn:
        for n in range(1, 31):
            schedule(conn, f"1.2.{n}")
            claim(conn, fence=str(n))
    start = threading.Barrier(6)

    def rescue(_: int) -> int:
        start.wait(30)
        with writing(engine) as conn:
            return leases.rescue(conn, T0 + 60 * SECOND)

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(rescue, range(6))) == 30
    with reading(engine) as conn:
        assert history(conn).count("workitem.expired") == 30


def test_no_more_items_of_a_destination_are_worked_on_than_it_takes(engine: Engine) -> None:
    with writing(engine) as conn:
        for number in range(4):
            items.schedule(conn, Kind.DELIVER, f"1.{number}", 1, T0, destination="pacs")
        other = items.schedule(conn, Kind.DELIVER, "1.9", 1, T0, destination="vna")
        limits = {"pacs": 2}
        held = [leases.claim(conn, "w", T0, 60, f"t{n}", limits=limits) for n in range(4)]
        assert [lease and lease.item.destination for lease in held] == ["pacs", "pacs", "vna", None]
        assert held[2] is not None
        assert held[2].item.id == other
        assert held[0] is not None
        leases.acknowledge(conn, held[0], Done(), T0)
        again = leases.claim(conn, "w", T0, 60, "t5", limits=limits)
        assert again is not None
        assert leases.claim(conn, "w", T0, 60, "t6", limits=limits) is None


def test_the_limit_holds_among_workers_that_claim_at_the_same_time(engine: Engine) -> None:
    with writing(engine) as conn:
        for number in range(20):
            items.schedule(conn, Kind.DELIVER, f"1.{number}", 1, T0, destination="pacs")
    together = threading.Barrier(8)

    def take(number: int) -> bool:
        together.wait(30)
        with writing(engine) as conn:
            return leases.claim(conn, f"w{number}", T0, 60, f"t{number}", limits={"pacs": 3}) is not None

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert taken.count(True) == 3


def test_a_worker_of_one_destination_takes_nothing_else_and_none_takes_what_is_left_alone(
    engine: Engine,
) -> None:
    with writing(engine) as conn:
        schedule(conn)
        items.schedule(conn, Kind.DELIVER, "1.1", 1, T0, destination="pacs")
        items.schedule(conn, Kind.DELIVER, "1.1", 1, T0, destination="vna")
        mine = leases.claim(conn, "w", T0, 60, "t1", kinds=[Kind.DELIVER], destination="vna")
        assert mine is not None
        assert mine.item.destination == "vna"
        assert leases.claim(conn, "w", T0, 60, "t2", kinds=[Kind.DELIVER], destination="vna") is None
        assert leases.claim(conn, "w", T0, 60, "t3", kinds=[Kind.DELIVER], without={"pacs"}) is None
        anything = leases.claim(conn, "w", T0, 60, "t4", without={"pacs"})
        assert anything is not None
        assert anything.item.kind is Kind.ANALYSE


def test_an_item_that_waited_beyond_patience_goes_before_urgent_ones(engine: Engine) -> None:
    with writing(engine) as conn:
        waited = schedule(conn, "1.2.1", priority=9)
        urgent = schedule(conn, "1.2.2", at=T0 + 1700 * SECOND, priority=1)

        def next_at(now: datetime, token: str) -> int:
            lease = leases.claim(conn, "worker", now, 60, token, patience_seconds=1800)
            assert lease is not None
            return lease.item.id

        assert next_at(T0 + 1799 * SECOND, "a") == urgent
        schedule(conn, "1.2.3", at=T0 + 1800 * SECOND, priority=1)
        assert next_at(T0 + 1800 * SECOND, "b") == waited


@pytest.mark.parametrize("urgent", [1, 3])
def test_with_endless_urgent_arrivals_every_low_item_is_claimed(engine: Engine, urgent: int) -> None:
    """Each minute brings as many urgent items as are worked off, or more: they would starve all others."""
    with writing(engine) as conn:
        waiting = {schedule(conn, f"1.2.{n}", priority=9) for n in range(4)}
        for step in range(60):
            now = T0 + step * 60 * SECOND
            for n in range(urgent):
                schedule(conn, f"1.3.{step}.{n}", at=now, priority=1)
            lease = leases.claim(conn, "worker", now, 60, f"token {step}", patience_seconds=1800)
            assert lease is not None
            waiting.discard(lease.item.id)
            leases.acknowledge(conn, lease, Done(), now)
        assert not waiting
