from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, select

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import IllegalTransitionError, LeaseLostError, NotFoundError
from dicom_node.domain.states import State
from dicom_node.domain.types import Done, Kind, Refuse
from dicom_node.queue import items, leases

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STUDY = "1.2.3"


def schedule(conn: Connection, study: str = STUDY, kind: Kind = Kind.ANALYSE, **more: object) -> int:
    return items.schedule(conn, kind, study, 1, T0, **more)  # type: ignore[arg-type]


def fail(conn: Connection, item_id: int) -> None:
    lease = leases.claim(conn, "worker", T0, 60, "token")
    assert lease is not None
    assert lease.item.id == item_id
    leases.acknowledge(conn, lease, Refuse("it is broken"), T0)


def history(conn: Connection) -> list[str]:
    return list(conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id)).scalars())


def test_a_new_item_is_scheduled_with_what_was_asked(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn, kind=Kind.DELIVER, destination="PACS", priority=2)
        item = items.get(conn, number)
        assert (item.kind, item.study_instance_uid, item.revision) == (Kind.DELIVER, STUDY, 1)
        assert (item.destination, item.priority, item.state) == ("PACS", 2, State.SCHEDULED)
        assert (item.attempts, item.available_at, item.reason) == (0, T0, "")
        assert history(conn) == ["workitem.scheduled"]


def test_the_same_work_is_asked_for_once(engine: Engine) -> None:
    with writing(engine) as conn:
        first = schedule(conn)
    with writing(engine) as conn:
        before = items.get(conn, first)
        assert items.schedule(conn, Kind.ANALYSE, STUDY, 1, T0 + SECOND, priority=1) == first
        assert items.get(conn, first) == before
        assert history(conn) == ["workitem.scheduled"]


def test_another_revision_or_destination_or_kind_is_other_work(engine: Engine) -> None:
    with writing(engine) as conn:
        numbers = {
            schedule(conn),
            items.schedule(conn, Kind.ANALYSE, STUDY, 2, T0),
            schedule(conn, kind=Kind.DELIVER, destination="A"),
            schedule(conn, kind=Kind.DELIVER, destination="B"),
        }
    assert len(numbers) == 4


def test_scheduling_again_does_not_resurrect_a_canceled_item(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        items.cancel(conn, number, T0)
        assert schedule(conn) == number
        assert items.get(conn, number).state is State.CANCELED


def test_canceling_takes_the_work_from_whoever_does_it(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        lease = leases.claim(conn, "worker", T0, 60, "token")
        assert lease is not None
        canceled = items.cancel(conn, number, T0, reason="wrong patient position")
        assert (canceled.state, canceled.reason) == (State.CANCELED, "wrong patient position")
    with writing(engine) as conn, pytest.raises(LeaseLostError, match=r"1\.2\.3"):
        leases.acknowledge(conn, lease, Done(), T0)
    with reading(engine) as conn:
        assert items.get(conn, number) == canceled


def test_a_failed_item_is_requeued_with_all_its_attempts(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        fail(conn, number)
        assert items.get(conn, number).reason == "it is broken"
        item = items.requeue(conn, number, T0 + SECOND)
        assert (item.state, item.attempts, item.available_at) == (State.SCHEDULED, 0, T0 + SECOND)
        assert item.reason == ""
        assert history(conn)[-2:] == ["workitem.failed", "workitem.scheduled"]


def test_what_a_state_does_not_allow_is_refused_and_changes_nothing(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
    with writing(engine) as conn:
        with pytest.raises(IllegalTransitionError, match="SCHEDULED work item cannot requeue"):
            items.requeue(conn, number, T0)
        assert items.get(conn, number).state is State.SCHEDULED
        assert history(conn) == ["workitem.scheduled"]


@pytest.mark.parametrize("ask", [items.cancel, items.requeue])
def test_an_unknown_item_is_said_to_be_unknown(engine: Engine, ask: object) -> None:
    with writing(engine) as conn, pytest.raises(NotFoundError, match="no work item 77"):
        ask(conn, 77, T0)  # type: ignore[operator]


def test_the_listing_is_newest_first_and_can_be_narrowed(engine: Engine) -> None:
    with writing(engine) as conn:
        first = schedule(conn, "1.1")
        fail(conn, first)
        second = schedule(conn, "1.2")
        third = schedule(conn, "1.1", Kind.DELIVER, destination="PACS")
        assert [i.id for i in items.listing(conn)] == [third, second, first]
        assert [i.id for i in items.listing(conn, limit=1)] == [third]
        assert [i.id for i in items.listing(conn, state=State.FAILED)] == [first]
        assert [i.id for i in items.listing(conn, kind=Kind.ANALYSE)] == [second, first]
        assert [i.id for i in items.listing(conn, State.SCHEDULED, Kind.ANALYSE)] == [second]


def test_the_counts_name_every_kind_and_state(engine: Engine) -> None:
    with writing(engine) as conn:
        fail(conn, schedule(conn, "1.1"))
        schedule(conn, "1.2")
        schedule(conn, "1.3")
        counts = items.counts(conn)
    assert len(counts) == len(Kind) * len(State)
    assert {key: n for key, n in counts.items() if n} == {("analyse", "FAILED"): 1, ("analyse", "SCHEDULED"): 2}


def test_the_oldest_due_item_is_the_one_that_waits_longest(engine: Engine) -> None:
    with writing(engine) as conn:
        assert items.oldest_due(conn, T0) is None
        items.schedule(conn, Kind.ANALYSE, "1.1", 1, T0 + SECOND)
        items.schedule(conn, Kind.ANALYSE, "1.2", 1, T0 + 3 * SECOND)
        assert items.oldest_due(conn, T0) is None
        assert items.oldest_due(conn, T0 + 9 * SECOND) == T0 + SECOND


def test_a_reason_no_database_can_hold_is_made_visible(engine: Engine) -> None:
    with writing(engine) as conn:
        number = schedule(conn)
        items.cancel(conn, number, T0, reason="a\x00b\udc80")
        assert items.get(conn, number).reason == "a\ufffdb?"
        (detail,) = conn.execute(
            select(schema.events.c.detail).where(schema.events.c.kind == "workitem.canceled")
        ).scalars()
    assert detail["reason"] == "a\ufffdb?"


def test_an_item_that_waits_is_hastened_and_one_that_does_not_is_left(engine: Engine) -> None:
    def hasten(destination: str) -> None:
        items.hasten(conn, Kind.DELIVER, STUDY, 1, destination, T0)

    with writing(engine) as conn:
        waiting, other, done = (
            items.schedule(conn, Kind.DELIVER, STUDY, 1, T0 + 60 * SECOND, destination=name) for name in "ABC"
        )
        items.cancel(conn, done, T0)
        hasten("A")
        hasten("C")
        hasten("D")
        at = [items.get(conn, number).available_at - T0 for number in (waiting, other, done)]
        assert at == [0 * SECOND, 60 * SECOND, 60 * SECOND]
        assert items.get(conn, done).state is State.CANCELED
