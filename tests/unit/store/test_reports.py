from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, select

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import NotFoundError
from dicom_node.domain.types import Delivery, Ingested, Kind, Report, Verdict
from dicom_node.queue import items
from dicom_node.store import node_facts, overview, reports, studies

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STUDY = "1.2.3"

Take = Callable[..., Ingested]


def add(
    conn: Connection, sop: str = "2.25.1", revision: int = 1, bank: str = "b1", digest: str = "d1"
) -> reports.StoredReport:
    return reports.add(
        conn,
        Report("1.2.840.10008.5.1.4.1.1.88.34", sop, "2.25.9", STUDY, b"bytes"),
        digest=digest,
        revision=revision,
        bank_hash=bank,
        verdict=Verdict.ABOVE,
        result={"images": [{"score": 1.5}], "decisive": 0},
        at=T0,
    )


def history(conn: Connection) -> list[str]:
    return list(conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id)).scalars())


def test_a_report_comes_back_as_it_was_added(engine: Engine) -> None:
    with writing(engine) as conn:
        stored = add(conn)
        assert history(conn) == ["report.stored"]
    with reading(engine) as conn:
        assert reports.get(conn, STUDY, 1) == stored
    assert (stored.sop_instance_uid, stored.digest, stored.verdict) == ("2.25.1", "d1", Verdict.ABOVE)
    assert stored.result == {"images": [{"score": 1.5}], "decisive": 0}
    assert stored.created_at == T0


def test_the_same_report_again_changes_nothing(engine: Engine) -> None:
    with writing(engine) as conn:
        first = add(conn)
        assert add(conn) == first
        assert history(conn) == ["report.stored"]


def test_the_first_report_to_a_revision_stands_and_a_different_one_is_told_of(engine: Engine) -> None:
    with writing(engine) as conn:
        first = add(conn)
        assert add(conn, digest="d2") == first
        assert history(conn) == ["report.stored", "report.differs"]
        assert reports.of_study(conn, STUDY) == (first,)


def test_reports_are_found_by_revision(engine: Engine) -> None:
    with writing(engine) as conn:
        second = add(conn, "2.25.2", revision=2, digest="d2")
        first = add(conn, "2.25.1", revision=1)
        assert reports.get(conn, STUDY, 2) == second
        assert reports.get(conn, STUDY, 3) is None
        assert reports.of_study(conn, STUDY) == (first, second)
        assert reports.of_study(conn, STUDY, before_revision=2) == (first,)


def test_of_several_banks_the_newest_answer_is_the_report(engine: Engine) -> None:
    with writing(engine) as conn:
        add(conn, "2.25.1", bank="b1")
        newest = add(conn, "2.25.2", bank="b2", digest="d2")
        assert reports.get(conn, STUDY, 1) == newest


def test_the_node_knows_its_own_objects(engine: Engine) -> None:
    with writing(engine) as conn:
        add(conn)
        assert reports.is_own(conn, "2.25.1")
        assert not reports.is_own(conn, "2.25.2")


def test_a_delivery_is_counted_once_for_each_destination(engine: Engine) -> None:
    with writing(engine) as conn:
        add(conn)
        assert reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0xB000, "coerced"), T0)
        assert not reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0), T0 + SECOND)
        assert reports.record_delivery(conn, Delivery("ARCHIVE", "2.25.1", 0), T0)
        archive, pacs = reports.deliveries(conn, "2.25.1")
        assert (archive.destination, archive.status) == ("ARCHIVE", 0)
        assert (pacs.status, pacs.comment, pacs.sent_at) == (0xB000, "coerced", T0)
        assert history(conn) == ["report.stored", "delivery.done", "delivery.done"]
        events = conn.execute(
            select(schema.events.c.study_instance_uid).where(schema.events.c.kind == "delivery.done")
        )
        assert set(events.scalars()) == {STUDY}


def test_a_comment_no_database_can_hold_does_not_lose_the_delivery(engine: Engine) -> None:
    with writing(engine) as conn:
        reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0, "a\x00" * 300), T0)
        (delivery,) = reports.deliveries(conn, "2.25.1")
    assert delivery.comment == "a\ufffd" * 128


def test_what_a_peer_commented_is_in_no_event(engine: Engine) -> None:
    with writing(engine) as conn:
        reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0xB000, "unknown patient DOE^JANE"), T0)
        assert "DOE" not in str(conn.execute(select(schema.events.c.detail)).all())


def test_a_fact_about_the_node_is_made_once_and_kept(engine: Engine) -> None:
    with writing(engine) as conn:
        assert node_facts.node_value(conn, "device_uid", "2.25.7") == "2.25.7"
    with writing(engine) as conn:
        assert node_facts.node_value(conn, "device_uid", "2.25.8") == "2.25.7"


def test_processes_that_make_the_same_fact_at_once_agree(engine: Engine) -> None:
    start = threading.Barrier(6)

    def make(number: int) -> str:
        start.wait(30)
        with writing(engine) as conn:
            return node_facts.node_value(conn, "device_uid", f"2.25.{number}")

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(make, range(6)))) == 1


def test_the_list_of_studies_says_how_far_each_is(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1")
        take(conn, "1.1", "other bytes")
        studies.close_revision(conn, STUDY, 1, T0)
        take(conn, "1.2", at=T0 + SECOND)
        studies.close_revision(conn, STUDY, 2, T0 + SECOND)
        add(conn)
        reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0), T0)
        take(conn, "1.3", study="1.9", at=T0 + 2 * SECOND)
        done = items.schedule(conn, Kind.ANALYSE, STUDY, 1, T0)
        items.cancel(conn, done, T0)
        item = items.schedule(conn, Kind.ANALYSE, STUDY, 2, T0)
        newest, oldest = overview.list_studies(conn)
        assert overview.list_studies(conn, limit=1) == (newest,)
        assert overview.list_studies(conn, limit=1, offset=1) == (oldest,)
        assert overview.list_studies(conn, offset=2) == ()
    assert newest == overview.StudySummary(
        study_instance_uid="1.9", revision=1, is_open=True, first_received_at=T0 + 2 * SECOND,
        last_received_at=T0 + 2 * SECOND, images=1, conflicts=0, verdict=None, deliveries=0, waiting=(),
    )  # fmt: skip
    assert oldest == overview.StudySummary(
        study_instance_uid=STUDY, revision=2, is_open=False, first_received_at=T0,
        last_received_at=T0 + SECOND, images=2, conflicts=1, verdict="above threshold", deliveries=1,
        waiting=(
            {"id": item, "kind": "analyse", "revision": 2, "destination": "", "state": "SCHEDULED",
             "attempts": 0, "reason": ""},
        ),
    )  # fmt: skip


def test_a_study_is_shown_with_all_that_is_held_of_it_and_no_lease_token(engine: Engine, take: Take) -> None:
    with writing(engine) as conn:
        take(conn, "1.1")
        take(conn, "1.2", study="1.9")
        studies.close_revision(conn, STUDY, 1, T0)
        items.schedule(conn, Kind.ANALYSE, STUDY, 1, T0)
        add(conn)
        reports.record_delivery(conn, Delivery("PACS", "2.25.1", 0), T0)
        shown = overview.show_study(conn, STUDY)
    assert [row["number"] for row in shown.revisions] == [1]
    assert [row["sop_instance_uid"] for row in shown.instances] == ["1.1"]
    assert [row["state"] for row in shown.work_items] == ["SCHEDULED"]
    assert "lease_token" not in shown.work_items[0]
    assert [row["verdict"] for row in shown.reports] == ["above threshold"]
    assert [row["destination"] for row in shown.deliveries] == ["PACS"]
    assert [row["kind"] for row in shown.events] == [
        "revision.opened",
        "instance.stored",
        "revision.closed",
        "workitem.scheduled",
        "report.stored",
        "delivery.done",
    ]


def test_a_study_that_never_came_cannot_be_shown(engine: Engine) -> None:
    with reading(engine) as conn, pytest.raises(NotFoundError, match=r"1\.2\.3 is not held here"):
        overview.show_study(conn, STUDY)
