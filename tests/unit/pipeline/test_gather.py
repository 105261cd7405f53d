"""When a study counts as complete, and how urgent it is then, on both databases."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, select

from dicom_node.config import Gather
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.expectation import MOST_REFERENCES
from dicom_node.domain.types import Received
from dicom_node.domain.urgency import HIGH, LOW, ROUTINE, STAT
from dicom_node.pipeline.arriving import Seen, accession_hash, priority
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.store import expected, instances, studies

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STUDY, IMAGE, OTHER = "1.2.3", "1.2.3.1.1", "1.2.3.1.2"
CONFIG = Gather(quiet_seconds=5, open_association_seconds=60, hold_seconds=900)
CODE = ("36643-5", "LN", "XR Chest 2 Views")


def arrive(engine: Engine, sop: str = IMAGE, at: datetime = T0, *, released: bool = True) -> None:
    received = Received(
        Path("unused"), 0, "1.2.840.10008.5.1.4.1.1.1.1", sop, "1.2.840.10008.1.2.1", "CR1", "NODE", "", sop, at
    )
    digest = hashlib.sha256(sop.encode()).hexdigest()
    with writing(engine) as conn:
        studies.association_opened(conn, sop, "CR1", "NODE", "192.0.2.1", at)
        instances.add(
            conn,
            received,
            study_instance_uid=STUDY,
            series_instance_uid="1.2.3.1",
            digest=digest,
            size=1,
            at=at,
        )
        if released:
            studies.association_ended(conn, sop, "released", at)


def say(engine: Engine, **notice: object) -> None:
    with writing(engine) as conn:
        facts = {"source": "ian", "key": "1", "study_instance_uid": STUDY, "at": T0} | notice
        expected.put(conn, **facts)  # type: ignore[arg-type] # each test says what it needs


def gather(engine: Engine, at: datetime, look: Callable[[str, int], Seen] = lambda *_: Seen()) -> int:
    return close_quiet_revisions(engine, CONFIG, lambda: at, look)


def priorities(engine: Engine) -> list[int]:
    with reading(engine) as conn:
        return list(conn.execute(select(schema.work_items.c.priority)).scalars())


def test_a_study_of_which_all_named_images_are_here_closes_at_once(engine: Engine) -> None:
    say(engine, state="complete", refs=(IMAGE, OTHER), until=T0 + 600 * SECOND)
    arrive(engine)
    assert gather(engine, T0 + 20 * SECOND) == 0
    arrive(engine, OTHER, T0 + 30 * SECOND)
    assert gather(engine, T0 + 30 * SECOND) == 1


def test_an_association_that_is_open_holds_even_a_study_that_is_said_to_be_whole(engine: Engine) -> None:
    say(engine, state="complete", refs=(IMAGE,))
    arrive(engine, released=False)
    assert gather(engine, T0 + SECOND) == 0
    assert gather(engine, T0 + 61 * SECOND) == 1


def test_an_open_notice_holds_a_study_until_its_time_is_over(engine: Engine) -> None:
    arrive(engine)
    say(engine, source="mpps", until=T0 + 60 * SECOND)
    assert gather(engine, T0 + 59 * SECOND) == 0
    assert gather(engine, T0 + 60 * SECOND) == 1


def test_a_lying_notice_costs_no_more_than_the_cap(engine: Engine) -> None:
    arrive(engine)
    many = tuple(f"1.9.{n}" for n in range(MOST_REFERENCES + 5))
    say(engine, state="complete", refs=many, until=T0 + timedelta(days=9999))
    assert gather(engine, T0 + 899 * SECOND) == 0
    assert gather(engine, T0 + 900 * SECOND) == 1
    with reading(engine) as conn:
        assert len(conn.execute(select(schema.expected.c.refs)).scalar_one()) == MOST_REFERENCES


def test_a_notice_of_another_study_changes_nothing(engine: Engine) -> None:
    arrive(engine)
    say(engine, study_instance_uid="1.2.4", state="complete", refs=(IMAGE,), priority=STAT)
    assert gather(engine, T0 + 4 * SECOND) == 0
    assert gather(engine, T0 + 5 * SECOND) == 1
    assert priorities(engine) == [ROUTINE]


def test_what_is_said_again_under_a_key_takes_the_place_of_what_was(engine: Engine) -> None:
    say(engine, source="mwl", priority=STAT)
    say(engine, source="mwl", priority=HIGH)
    with reading(engine) as conn:
        assert expected.priority(conn, STUDY) == HIGH


def test_the_most_urgent_that_is_known_counts_and_a_fetch_only_where_nothing_else_is(engine: Engine) -> None:
    say(engine, source="fetch", priority=LOW)
    with reading(engine) as conn:
        assert expected.priority(conn, STUDY) == LOW
    say(engine, source="ups", priority=ROUTINE)
    say(engine, source="mwl", priority=HIGH)
    with reading(engine) as conn:
        assert expected.priority(conn, STUDY) == HIGH
        assert expected.priority(conn, "1.2.4") == ROUTINE


def test_rules_make_studies_more_urgent_except_those_fetched_for_an_archive(engine: Engine) -> None:
    with reading(engine) as conn:
        assert priority(conn, STUDY, Seen(priority=STAT)) == STAT
        assert priority(conn, STUDY, Seen(priority=LOW)) == LOW
    say(engine, source="mwl", priority=HIGH)
    with reading(engine) as conn:
        assert priority(conn, STUDY, Seen(priority=LOW)) == HIGH
    say(engine, source="mwl", state="withdrawn")
    say(engine, source="fetch", priority=LOW)
    with reading(engine) as conn:
        assert priority(conn, STUDY, Seen(priority=STAT)) == LOW


def test_an_entry_is_matched_by_accession_number_and_gives_priority_and_procedure(engine: Engine) -> None:
    hashed = accession_hash("key", " A1 ")
    say(
        engine,
        source="mwl",
        key="ris:1",
        study_instance_uid="1.9",
        priority=STAT,
        procedure=CODE,
        accession_hash=hashed,
        due_at=T0,
    )
    arrive(engine)
    assert gather(engine, T0 + 5 * SECOND, lambda *_: Seen(frozenset({hashed}))) == 1
    assert priorities(engine) == [STAT]
    with reading(engine) as conn:
        assert studies.procedure_of(conn, STUDY, 1) == CODE
        assert expected.due(conn) == ()
        assert "A1" not in str(conn.execute(select(schema.expected)).all())
