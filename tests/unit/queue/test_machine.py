"""Random histories: whatever is done in whatever order, the rows obey the transition table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, select

from dicom_node.db import schema
from dicom_node.domain.errors import IllegalTransitionError, LeaseLostError
from dicom_node.domain.states import TRANSITIONS, Action, State
from dicom_node.domain.types import Done, Kind, Lease, Outcome, Refuse, Retry
from dicom_node.queue import items, leases

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
STUDIES = ("1.1", "1.2", "1.3")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.sampled_from(STUDIES)),
        st.tuples(st.sampled_from(["cancel", "requeue"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["complete", "retry", "fail", "heartbeat"]), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.sampled_from([1, 30, 61])),
        st.tuples(st.sampled_from(["claim", "rescue"]), st.just(0)),
    ),
    min_size=8,
    max_size=40,
)
OUTCOMES: dict[str, tuple[Action, Outcome]] = {
    "complete": (Action.COMPLETE, Done()),
    "retry": (Action.RETRY, Retry("away")),
    "fail": (Action.FAIL, Refuse("no")),
}


class Machine:
    """Does one step at a time and says beforehand, from the table and its own memory, what must follow."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.now = T0
        self.states: dict[int, State] = {}
        self.holders: dict[int, Lease] = {}
        self.leases: list[Lease] = []

    def do(self, name: str, argument: object) -> None:
        if name == "schedule":
            number = items.schedule(self.conn, Kind.ANALYSE, str(argument), 1, self.now)
            self.states.setdefault(number, State.SCHEDULED)
        elif name == "wait":
            self.now += timedelta(seconds=int(str(argument)))
        elif name == "claim":
            self.claim()
        elif name == "rescue":
            self.rescue()
        elif name in ("cancel", "requeue"):
            self.person(Action(name), int(str(argument)))
        elif self.leases:
            self.worker(name, self.leases[int(str(argument)) % len(self.leases)])
        self.check()

    def claim(self) -> None:
        lease = leases.claim(self.conn, "worker", self.now, 60, f"token {len(self.leases)}")
        if lease is None:
            # A retry is available at once here, so nothing scheduled can be left.
            assert State.SCHEDULED not in self.states.values()
            return
        self.states[lease.item.id] = TRANSITIONS[self.states[lease.item.id], Action.CLAIM]
        self.leases.append(lease)
        self.holders[lease.item.id] = lease

    def rescue(self) -> None:
        due = [number for number, lease in self.holders.items() if lease.until <= self.now]
        assert leases.rescue(self.conn, self.now) == len(due)
        for number in due:
            self.states[number] = TRANSITIONS[self.states[number], Action.EXPIRE]
            del self.holders[number]

    def person(self, action: Action, index: int) -> None:
        if not self.states:
            return
        number = sorted(self.states)[index % len(self.states)]
        change = items.cancel if action is Action.CANCEL else items.requeue
        try:
            change(self.conn, number, self.now)
        except IllegalTransitionError:
            assert (self.states[number], action) not in TRANSITIONS
            return
        self.states[number] = TRANSITIONS[self.states[number], action]
        self.holders.pop(number, None)

    def worker(self, name: str, lease: Lease) -> None:
        number = lease.item.id
        holder = self.holders.get(number)
        holds = holder is not None and holder.token == lease.token
        try:
            if name == "heartbeat":
                extended = leases.heartbeat(self.conn, lease, self.now, 60)
            else:
                leases.acknowledge(self.conn, lease, OUTCOMES[name][1], self.now, self.now)
        except LeaseLostError:
            assert holder is None or not holds or (name != "heartbeat" and holder.until <= self.now)
            return
        assert holds
        if name == "heartbeat":
            self.holders[number] = extended
        else:
            self.states[number] = TRANSITIONS[self.states[number], OUTCOMES[name][0]]
            del self.holders[number]

    def check(self) -> None:
        rows = self.conn.execute(select(schema.work_items)).all()
        assert {row.id: State(row.state) for row in rows} == self.states
        for row in rows:
            held = self.holders.get(row.id)
            assert (row.lease_token, row.lease_until) == ((held.token, held.until) if held else (None, None))
            assert (row.lease_token is not None) == (row.state == State.IN_PROGRESS)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=steps)
def test_whatever_happens_the_rows_obey_the_transition_table(
    engine: Engine, steps: list[tuple[str, object]]
) -> None:
    with engine.connect() as conn, conn.begin() as transaction:
        machine = Machine(conn)
        for name, argument in steps:
            machine.do(name, argument)
        transaction.rollback()
