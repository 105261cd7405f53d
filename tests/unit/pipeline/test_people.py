"""Who is let in, for how long, and what is remembered of it: on both databases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from dicom_node.db.engine import reading
from dicom_node.db.schema_people import keys, login_failures, people, sessions
from dicom_node.domain.audit import AuditEvent, AuditOutcome, UserAuthenticated
from dicom_node.domain.errors import AccessError, CertificateError, NotFoundError
from dicom_node.domain.reading import Role
from dicom_node.pipeline import people as module
from dicom_node.pipeline.people import People
from tests.fakes import ManualClock

PASSCODE = "correct horse"
HERE = "10.0.0.7"
_cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def audited() -> list[AuditEvent]:
    return []


@pytest.fixture
def door(engine, clock, audited) -> People:
    door = People(
        engine,
        clock,
        session_hours=8,
        idle_minutes=30,
        audit=audited.append,
        hash_of=_cheap.hash,
    )
    door.put("ann", Role.OPERATOR, PASSCODE)
    return door


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(AccessError) as caught:
        call()
    return str(caught.value)


def test_name_and_passcode_begin_a_session_and_the_trail_tells_of_it(door, audited, clock):
    opened = door.login("ann", PASSCODE, HERE)
    session = door.session(opened.token)
    assert session is not None
    assert (session.person.name, session.person.role) == ("ann", Role.OPERATOR)
    assert session.csrf == opened.session.csrf != opened.token
    assert audited == [UserAuthenticated(clock.at, "ann", HERE)]


def test_a_name_that_no_database_can_hold_is_nobodys(door):
    assert refused(lambda: door.login("ann\0", PASSCODE, HERE)) == "name and passcode do not fit"


def test_two_sessions_share_no_token(door):
    first, second = door.login("ann", PASSCODE, HERE), door.login("ann", PASSCODE, HERE)
    assert first.token != second.token
    assert first.session.csrf != second.session.csrf
    assert min(len(first.token), len(first.session.csrf)) >= 43  # 256 bits


def test_a_wrong_name_and_a_wrong_passcode_are_told_apart_by_nobody(door, audited):
    assert refused(lambda: door.login("ann", "wrong", HERE)) == refused(
        lambda: door.login("bob", "wrong", HERE)
    )
    assert [(event.by, event.outcome) for event in audited] == [
        ("ann", AuditOutcome.MINOR_FAILURE),
        ("", AuditOutcome.MINOR_FAILURE),  # what was typed as a name may be a passcode
    ]


def test_an_unknown_name_costs_a_whole_check_too(door, monkeypatch):
    checked: list[str] = []
    monkeypatch.setattr(module, "matches", lambda hashed, _passcode: bool(checked.append(hashed)))
    for name in ("ann", "nobody"):
        refused(lambda name=name: door.login(name, "wrong", HERE))
    assert [hashed.partition(",p")[0] for hashed in checked] == ["$argon2id$v=19$m=8,t=1"] * 2


def test_no_token_and_no_passcode_is_in_the_database(door, engine):
    opened = door.login("ann", PASSCODE, HERE)
    secrets = [opened.token, door.token("ann"), door.link("ann"), PASSCODE]
    with reading(engine) as conn:
        rows = [str(row) for table in (people, sessions, keys) for row in conn.execute(select(table))]
    assert len(rows) == 4
    assert not [secret for secret in secrets if secret in "".join(rows)]
    assert hashlib.sha256(opened.token.encode()).hexdigest() in "".join(rows)
    assert opened.token not in repr(opened)


def test_a_session_ends_after_its_hours_even_if_it_is_used(door, clock):
    token = door.login("ann", PASSCODE, HERE).token
    for _ in range(15):
        clock.forward(29 * 60)
        assert door.session(token) is not None
    clock.forward(46 * 60)
    assert door.session(token) is None


def test_a_session_ends_when_nobody_uses_it(door, clock):
    token = door.login("ann", PASSCODE, HERE).token
    clock.forward(30 * 60)
    assert door.session(token) is None


def test_sessions_that_are_over_are_forgotten_at_the_next_login(door, clock, engine):
    door.login("ann", PASSCODE, HERE)
    clock.forward(9 * 3600)
    door.login("ann", PASSCODE, HERE)
    with reading(engine) as conn:
        assert len(conn.execute(select(sessions)).all()) == 1


def test_a_person_has_a_bounded_number_of_sessions_and_the_oldest_end(door, clock):
    opened = []
    for _ in range(22):
        clock.forward(1)
        opened.append(door.login("ann", PASSCODE, HERE).token)
    assert [door.session(token) is not None for token in opened] == [False] * 2 + [True] * 20


def test_logging_out_ends_this_session_alone(door, audited, clock):
    here, there = (door.login("ann", PASSCODE, HERE).token for _ in range(2))
    door.logout(here, "ann", HERE)
    assert door.session(here) is None
    assert door.session(there) is not None
    assert audited[-1] == UserAuthenticated(clock.at, "ann", HERE, login=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda door: door.give_role("ann", Role.VIEWER),
        lambda door: door.put("ann", Role.OPERATOR, "another passcode"),
        lambda door: door.put("ann", Role.OPERATOR, None),
        lambda door: door.remove("ann"),
    ],
    ids=["role", "passcode", "no passcode", "removal"],
)
def test_a_change_ends_sessions_and_links_at_once(door, change):
    token, link = door.login("ann", PASSCODE, HERE).token, door.link("ann")
    change(door)
    assert door.session(token) is None
    refused(lambda: door.follow_link(link, HERE))


def test_a_role_changes_and_the_passcode_stays_but_none_means_none(door):
    door.give_role("ann", Role.ADMIN)
    assert door.login("ann", PASSCODE, HERE).session.person.role is Role.ADMIN
    door.put("ann", Role.ADMIN, None)
    refused(lambda: door.login("ann", PASSCODE, HERE))
    with pytest.raises(NotFoundError):
        door.give_role("bob", Role.ADMIN)


@pytest.mark.parametrize("passcode", ["-", ""])
def test_what_stands_in_place_of_a_hash_is_no_passcode(door, passcode):
    door.put("program", Role.VIEWER, None)
    refused(lambda: door.login("program", passcode, HERE))


def test_passcodes_of_a_sensible_length_and_names_that_can_be_shown_are_taken(door):
    assert "has 9 characters; 10 to 1024 are right" in refused(lambda: door.put("bob", Role.VIEWER, "x" * 9))
    for name in ("", "a:b", "a\nb", "x" * 65):
        with pytest.raises(CertificateError):
            door.put(name, Role.VIEWER, PASSCODE)


def test_failures_count_in_every_process_and_over_a_restart_and_tell_nothing_of_what_was_typed(
    door, engine, clock
):
    for number in range(6):
        refused(lambda number=number: door.login("my-passcode", "wrong", f"10.0.0.{number}"))
    again = People(engine, clock, hash_of=_cheap.hash)
    assert "too many failures" in refused(lambda: again.login("my-passcode", "wrong", "10.0.0.99"))
    with reading(engine) as conn:
        rows = [row.who for row in conn.execute(select(login_failures))]
    assert len(rows) == 6  # of five addresses and a name; the sixth was turned away
    assert "passcode" not in "".join(rows)
    clock.forward(3601)
    refused(lambda: again.login("my-passcode", "wrong", HERE))
    with reading(engine) as conn:
        assert [row.failures for row in conn.execute(select(login_failures))] == [1, 1]


def test_who_is_wrong_often_waits_even_with_the_right_passcode(door, clock):
    for _ in range(5):
        refused(lambda: door.login("ann", "wrong", HERE))
    assert (
        refused(lambda: door.login("ann", PASSCODE, HERE)) == "there were too many failures; try again in 2 s"
    )
    clock.forward(2)
    assert door.login("ann", PASSCODE, HERE)


def test_failures_from_everywhere_slow_one_name_down_but_never_for_long(door, clock):
    for number in range(60):
        clock.forward(31)
        refused(lambda number=number: door.login("ann", "wrong", f"10.0.1.{number}"))
    assert "30 s" in refused(lambda: door.login("ann", PASSCODE, HERE))
    clock.forward(30)
    assert door.login("ann", PASSCODE, HERE)


def test_one_address_that_tries_many_names_is_slowed_down(door):
    for number in range(5):
        refused(lambda number=number: door.login(f"nobody{number}", "wrong", HERE))
    assert "too many failures" in refused(lambda: door.login("ann", PASSCODE, HERE))
    assert door.login("ann", PASSCODE, "10.0.0.8")


def test_a_link_lets_in_once_and_for_minutes(door, clock):
    link = door.link("ann")
    assert door.follow_link(link, HERE).session.person.name == "ann"
    assert "was used" in refused(lambda: door.follow_link(link, HERE))
    late = door.link("ann")
    clock.forward(15 * 60 + 1)
    assert "older than 15 minutes" in refused(lambda: door.follow_link(late, HERE))


def test_a_token_is_of_programs_until_it_is_taken_back_and_no_link(door):
    token = door.token("ann")
    person = door.program(token)
    assert person is not None
    assert person.role is Role.OPERATOR
    assert door.session(token) is None
    refused(lambda: door.follow_link(token, HERE))
    assert door.program(door.link("ann")) is None
    assert door.revoke("ann") == 1
    assert door.program(token) is None


def test_who_is_vouched_for_comes_in_with_the_role_of_that_moment(door):
    first = door.vouched("kim", "https://idp kim-1", Role.VIEWER, HERE)
    second = door.vouched("kim", "https://idp kim-1", Role.ADMIN, HERE)
    assert second.session.person.role is Role.ADMIN
    assert door.session(first.token) is None


@pytest.mark.parametrize("name", ["ann", "kim", "program"])
def test_a_name_of_somebody_else_lets_nobody_in(door, audited, name):
    door.put("program", Role.ADMIN, None)
    door.vouched("kim", "https://idp kim-1", Role.VIEWER, HERE)
    assert "is somebody else here" in refused(lambda: door.vouched(name, "https://idp 2", Role.ADMIN, HERE))
    assert audited[-1].outcome is AuditOutcome.MINOR_FAILURE
    assert {one.name: one.role for one in door.listed()}["kim"] is Role.VIEWER


def test_the_list_tells_what_lets_a_person_in(door):
    door.login("ann", PASSCODE, HERE)
    door.token("ann")
    door.put("program", Role.VIEWER, None)
    told = [(one.name, one.role, one.passcode, one.sessions, one.tokens) for one in door.listed()]
    assert told == [("ann", Role.OPERATOR, True, 1, 1), ("program", Role.VIEWER, False, 0, 0)]
