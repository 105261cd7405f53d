from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.types import Ingested
from dicom_node.store import instances, studies
from dicom_node.store.files import FileStore

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STUDY = "1.2.3"

Take = Callable[..., Ingested]


def ask(engine: Engine, now: datetime) -> list[tuple[str, int]]:
    with reading(engine) as conn:
        return studies.quiet(conn, now, quiet_seconds=5, open_association_seconds=60)


def test_an_association_is_opened_once_and_seen_ever_later(engine: Engine) -> None:
    with writing(engine) as conn:
        studies.association_opened(conn, "A", "MODALITY", "DICOMNODE", "192.0.2.1", T0)
        studies.association_seen(conn, "A", T0 + 2 * SECOND)
        studies.association_seen(conn, "A", T0 + SECOND)
        (row,) = conn.execute(select(schema.associations)).all()
    assert (row.calling_ae_title, row.called_ae_title, row.peer_address) == (
        "MODALITY", "DICOMNODE", "192.0.2.1",
    )  # fmt: skip
    assert (row.opened_at, row.last_seen_at, row.released_at, row.ended_as) == (T0, T0 + 2 * SECOND, None, "")


def test_the_first_end_of_an_association_stands(engine: Engine) -> None:
    with writing(engine) as conn:
        studies.association_opened(conn, "A", "MODALITY", "DICOMNODE", "192.0.2.1", T0)
        assert studies.association_ended(conn, "A", "released", T0 + SECOND)
        assert not studies.association_ended(conn, "A", "aborted", T0 + 2 * SECOND)
        (row,) = conn.execute(select(schema.associations)).all()
    assert (row.released_at, row.ended_as) == (T0 + SECOND, "released")


def test_the_end_of_an_association_that_stored_nothing_leaves_no_trace(engine: Engine) -> None:
    with writing(engine) as conn:
        assert not studies.association_ended(conn, "A", "released", T0)
        assert conn.execute(select(schema.associations)).all() == []


def test_a_study_is_quiet_when_its_association_is_released_and_the_quiet_time_over(
    engine: Engine, take: Take
) -> None:
    with writing(engine) as conn:
        take(conn)
        studies.association_ended(conn, "A", "released", T0 + SECOND)
    assert ask(engine, T0 + 4.9 * SECOND) == []
    assert ask(engine, T0 + 5 * SECOND) == [(STUDY, 1)]


def test_a_study_is_not_quiet_while_its_association_is_open(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
    assert ask(engine, T0 + 60 * SECOND) == []


def test_an_association_not_seen_for_long_counts_as_dead(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
    assert ask(engine, T0 + 60.1 * SECOND) == [(STUDY, 1)]
    with writing(engine) as conn:
        studies.association_seen(conn, "A", T0 + 30 * SECOND)
    assert ask(engine, T0 + 60.1 * SECOND) == []


def test_one_of_two_associations_still_open_keeps_a_study_from_being_quiet(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1", association="A")
        take(conn, "1.2", association="B")
        studies.association_ended(conn, "A", "released", T0)
    assert ask(engine, T0 + 20 * SECOND) == []
    with writing(engine) as conn:
        studies.association_ended(conn, "B", "aborted", T0)
    assert ask(engine, T0 + 20 * SECOND) == [(STUDY, 1)]


def test_an_association_that_sends_other_studies_does_not_hold_this_one_up(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1", association="A")
        studies.association_ended(conn, "A", "released", T0)
        take(conn, "1.2", study="1.9", association="B")
    assert ask(engine, T0 + 20 * SECOND) == [(STUDY, 1)]


def test_an_association_of_an_earlier_revision_does_not_hold_up_the_next(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1", association="A")
        studies.close_revision(conn, STUDY, 1, T0)
        take(conn, "1.2", association="B", at=T0 + 10 * SECOND)
        studies.association_ended(conn, "B", "released", T0 + 10 * SECOND)
    assert ask(engine, T0 + 20 * SECOND) == [(STUDY, 2)]


def test_the_study_that_is_quiet_for_longest_comes_first(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1", study="1.7", at=T0 + SECOND)
        take(conn, "1.2", study="1.8", at=T0)
        studies.association_ended(conn, "A", "released", T0 + SECOND)
    assert ask(engine, T0 + 20 * SECOND) == [("1.8", 1), ("1.7", 1)]


def test_a_revision_is_closed_once(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn)
        assert studies.revision_closed_at(conn, STUDY, 1) is None
        assert studies.close_revision(conn, STUDY, 1, T0 + 5 * SECOND, 5)
        assert not studies.close_revision(conn, STUDY, 1, T0 + 6 * SECOND, 5)
        assert studies.revision_closed_at(conn, STUDY, 1) == T0 + 5 * SECOND
        kinds = list(conn.execute(select(schema.events.c.kind)).scalars())
        assert kinds.count("revision.closed") == 1
    assert ask(engine, T0 + 90 * SECOND) == []


def test_an_image_between_asking_and_closing_keeps_the_revision_open(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1")
        studies.association_ended(conn, "A", "released", T0)
    assert ask(engine, T0 + 5 * SECOND) == [(STUDY, 1)]
    with writing(engine) as conn:
        take(conn, "1.2", association="B", at=T0 + 5 * SECOND)
    with writing(engine) as conn:
        assert not studies.close_revision(conn, STUDY, 1, T0 + 5 * SECOND, 5)
        assert studies.revision_closed_at(conn, STUDY, 1) is None


def test_a_revision_that_is_not_here_cannot_have_been_closed(engine: Engine) -> None:
    with reading(engine) as conn, pytest.raises(NotFoundError, match=r"1\.2\.3 has no revision 4"):
        studies.revision_closed_at(conn, STUDY, 4)


def test_the_clock_of_a_slower_machine_does_not_move_the_quiet_time_back(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1", at=T0 + 9 * SECOND)
        take(conn, "1.2", at=T0)
        (row,) = conn.execute(select(schema.revisions)).all()
    assert row.last_received_at == T0 + 9 * SECOND


def test_images_that_race_with_closing_are_never_lost(engine: Engine, take: Take, tmp_path: Path) -> None:
    """Four senders and one who closes whatever is open: each image is in exactly one revision, all numbered."""
    senders, each = 4, 15
    start = threading.Barrier(senders + 1)
    sent = threading.Event()

    def send(sender: int) -> None:
        start.wait(30)
        for n in range(each):
            with writing(engine) as conn:
                take(conn, f"1.{sender}.{n}", association=f"A{sender}")

    def close() -> dict[int, set[str]]:
        closed = {}
        start.wait(30)
        while True:
            last_round = sent.is_set()
            with writing(engine) as conn:
                number = studies.latest_revision(conn, STUDY)
                if number is not None and studies.close_revision(conn, STUDY, number, T0):
                    found = conn.execute(select(schema.instances).where(schema.instances.c.revision == number))
                    closed[number] = {row.sop_instance_uid for row in found}
            if last_round:
                return closed

    with ThreadPoolExecutor(senders + 1) as pool:
        closing = pool.submit(close)
        for sending in [pool.submit(send, sender) for sender in range(senders)]:
            sending.result(120)
        sent.set()
        closed = closing.result(120)
    with reading(engine) as conn:
        last = max(closed)
        held = instances.of_revision(conn, FileStore(tmp_path / "store", 0), STUDY, last)
    # What the closer saw at each closing is what the revision has for ever.
    assert sum(len(found) for found in closed.values()) == senders * each
    assert {i.sop_instance_uid for i in held} == set().union(*closed.values())
    assert {(i.revision, i.sop_instance_uid) for i in held} == {(n, s) for n, f in closed.items() for s in f}
    assert sorted(closed) == list(range(1, last + 1))
