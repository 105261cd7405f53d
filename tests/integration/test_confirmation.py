"""A delivery is work that is done only when the destination answers for it, or cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from dicom_node.config import Queue
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.commitment import CommitmentResult, Failure, Reference
from dicom_node.domain.errors import DestinationAwayError, NotOfferedError
from dicom_node.domain.states import State
from dicom_node.domain.types import Delivery, Destination, Done, Kind, Report, Verdict, WorkItem
from dicom_node.pipeline.confirm import Confirm
from dicom_node.pipeline.dispatch import Dispatch
from dicom_node.pipeline.worker import Worker
from dicom_node.queue import items
from dicom_node.report.profile import CLASSES, cut_uid
from dicom_node.store import commitments, reports
from dicom_node.store.files import FileStore
from tests.fakes import ManualClock

STUDY = "1.2.3"
WINDOW = 600.0


class Archive:
    """A destination whose every service does as it is told."""

    def __init__(self) -> None:
        self.sent = 0
        self.asked: list[tuple[list[Reference], str]] = []
        self.commitment: Callable[[str], CommitmentResult | None] = _not_offered
        self.found: Callable[[str], bool] = _not_offered
        self.sent_as = ""

    def send(self, destination: Destination, content: bytes, also: Sequence[bytes] = ()) -> Delivery:
        self.sent += 1
        return Delivery(destination.name, "1.2.9", 0, sent_as=self.sent_as)

    def request(
        self, _destination: Destination, references: list[Reference], transaction_uid: str
    ) -> CommitmentResult | None:
        self.asked.append((references, transaction_uid))
        return self.commitment(transaction_uid)

    def holds(self, _destination: Destination, *, sop_instance_uid: str, **_where: str) -> bool:
        return self.found(sop_instance_uid)


def _not_offered(_what: str) -> None:
    raise NotOfferedError("it offers none")


class Site:
    def __init__(self, engine: Engine, folder: Path, confirm: str = "auto") -> None:
        self.engine, self.clock, self.archive = engine, ManualClock(), Archive()
        self.files = FileStore(folder / "store", 0)
        self.destination = replace(Destination("pacs", "PACS", "127.0.0.1", 104), confirm=confirm)  # type: ignore[arg-type]
        numbers = iter(range(1, 1000))
        self.confirm = Confirm(
            engine,
            self.archive.request,
            self.archive.holds,
            WINDOW,
            self.clock,
            lambda: f"2.25.{next(numbers)}",
        )
        self.dispatch = Dispatch(
            engine,
            self.files,
            self.archive.send,
            {"pacs": self.destination},
            self.clock,
            confirm=self.confirm,
        )
        self.worker = Worker(engine, Queue(), {Kind.DELIVER: self.dispatch}, "test", self.clock, lambda: 0.5)
        report = Report(CLASSES[0], "1.2.9", "1.2.8", STUDY, b"report")
        with writing(engine) as conn:
            conn.execute(
                schema.revisions.insert().values(
                    study_instance_uid=STUDY, number=1, opened_at=self.clock(), last_received_at=self.clock()
                )
            )
            reports.add(
                conn,
                report,
                digest=self.files.put_report(report.content),
                revision=1,
                bank_hash="",
                verdict=Verdict.FAILED,
                result={},
                at=self.clock(),
            )
            items.schedule(conn, Kind.DELIVER, STUDY, 1, self.clock(), destination="pacs")

    def work(self) -> WorkItem:
        """Let the worker do what is due now, and return the delivery's item."""
        while self.worker.step():
            pass
        with reading(self.engine) as conn:
            (item,) = items.of_study(conn, STUDY)
        return item

    def later(self, seconds: float = 200.0) -> WorkItem:
        self.clock.forward(seconds)
        return self.work()

    def confirmed(self) -> str:
        with reading(self.engine) as conn:
            return next((d.confirmed for d in reports.deliveries(conn, "1.2.9")), "withdrawn")

    def events(self) -> list[str]:
        with reading(self.engine) as conn:
            return list(conn.scalars(select(schema.events.c.kind).order_by(schema.events.c.id)))

    def answer(self, result: CommitmentResult) -> commitments.Asked | None:
        with writing(self.engine) as conn:
            return commitments.answer(conn, result, self.clock())


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path)


def committed(transaction_uid: str) -> CommitmentResult:
    return CommitmentResult(transaction_uid, (Reference(CLASSES[0], "1.2.9"),))


def refused(transaction_uid: str) -> CommitmentResult:
    return CommitmentResult(transaction_uid, (), (Failure(Reference(CLASSES[0], "1.2.9"), 0x0112),))


def test_a_commitment_on_the_same_association_completes_the_delivery(site: Site) -> None:
    site.archive.commitment = committed
    item = site.work()
    assert (item.state, item.reason, site.confirmed()) == (State.COMPLETED, "committed", "committed")
    assert site.archive.asked == [([Reference(CLASSES[0], "1.2.9")], "2.25.1")]
    assert (site.archive.sent, "delivery.confirmed" in site.events()) == (1, True)


def test_what_was_sent_in_another_class_is_asked_for_under_its_own_uid(site: Site) -> None:
    site.archive.commitment, site.archive.sent_as = committed, CLASSES[3]
    site.work()
    assert site.archive.asked[0][0] == [Reference(CLASSES[3], cut_uid("1.2.9", CLASSES[3]))]


def test_a_commitment_that_comes_later_on_another_association_completes_it_then(site: Site) -> None:
    site.archive.commitment = lambda _uid: None
    item = site.work()
    assert (item.state, site.confirmed()) == (State.SCHEDULED, "")
    assert "its answer is awaited" in item.reason
    assert site.answer(committed("2.25.1")) is not None
    assert (site.later().state, site.confirmed()) == (State.COMPLETED, "committed")
    assert (len(site.archive.asked), site.archive.sent) == (1, 1)


def test_an_answer_to_no_question_of_ours_and_a_second_one_change_nothing(site: Site) -> None:
    site.archive.commitment = lambda _uid: None
    site.work()
    assert site.answer(committed("2.25.77")) is None
    assert site.answer(committed("2.25.1")) is not None
    assert site.answer(refused("2.25.1")) is None
    assert site.later().state is State.COMPLETED


def test_what_the_archive_does_not_commit_itself_to_is_sent_again(site: Site) -> None:
    answers = iter([refused, committed])
    site.archive.commitment = lambda uid: next(answers)(uid)
    item = site.work()
    assert (item.state, site.confirmed()) == (State.SCHEDULED, "withdrawn")
    assert "0x0112 (no such object instance)" in item.reason
    assert "delivery.withdrawn" in site.events()
    assert (site.later().state, site.archive.sent, site.confirmed()) == (State.COMPLETED, 2, "committed")


def test_an_answer_that_never_comes_is_given_up_and_the_query_is_asked(site: Site) -> None:
    site.archive.commitment, site.archive.found = lambda _uid: None, lambda _uid: True
    assert site.work().state is State.SCHEDULED
    item = site.later(WINDOW + 1)
    assert (item.state, item.reason, site.confirmed()) == (State.COMPLETED, "found", "found")


def test_without_commitment_the_archive_is_queried_until_it_finds_the_report(site: Site) -> None:
    answers = iter([False, True])
    site.archive.found = lambda _uid: next(answers)
    assert site.work().state is State.SCHEDULED
    assert (site.later().state, site.confirmed(), site.archive.sent) == (State.COMPLETED, "found", 1)


def test_what_an_archive_has_not_found_when_the_time_is_over_is_sent_again(site: Site) -> None:
    site.archive.found = lambda _uid: False
    site.work()
    item = site.later(WINDOW + 1)
    assert (item.state, site.confirmed()) == (State.SCHEDULED, "withdrawn")
    assert "does not find the report" in item.reason


def test_an_archive_that_offers_neither_leaves_it_sent_unconfirmed_and_is_not_asked_each_time(
    site: Site,
) -> None:
    item = site.work()
    assert (item.state, site.confirmed()) == (State.COMPLETED, "unconfirmed")
    assert item.reason.startswith("sent, unconfirmed: ")
    assert not site.confirm.wanted(site.destination)
    site.clock.forward(3600)
    assert site.confirm.wanted(site.destination)


def test_an_archive_that_is_away_after_the_delivery_is_asked_again_and_counts_no_attempt(site: Site) -> None:
    def away(_uid: str) -> CommitmentResult:
        raise DestinationAwayError("pacs is away")

    site.archive.commitment = away
    item = site.work()
    assert (item.state, item.attempts) == (State.SCHEDULED, 0)
    site.archive.commitment = committed
    assert site.later().state is State.COMPLETED
    assert [uid for _, uid in site.archive.asked] == ["2.25.1", "2.25.2"]


def test_an_archive_that_lets_its_askers_wait_is_left_alone_as_one_that_lets_its_senders_wait(
    site: Site,
) -> None:
    def away(_uid: str) -> CommitmentResult:
        site.clock.forward(30)
        raise DestinationAwayError("pacs did not answer within 30 s")

    site.archive.commitment = away
    item = site.work()
    assert site.dispatch.left_alone() == {"pacs"}
    waits = site.dispatch(item)
    assert (len(site.archive.asked), waits.counted) == (1, False)
    site.archive.commitment = committed
    assert site.later().state is State.COMPLETED
    assert site.dispatch.left_alone() == frozenset()


def test_who_only_waits_for_an_answer_takes_nobodys_turn_to_try_an_archive_that_was_away(site: Site) -> None:
    site.archive.commitment = lambda _uid: None
    item = site.work()
    site.dispatch._absences.note("pacs", "pacs did not answer within 30 s", timedelta(seconds=30))
    assert "its answer is awaited" in site.dispatch(item).outcome.reason
    assert site.dispatch.left_alone() == {"pacs"}
    site.clock.forward(61)
    site.dispatch(item)
    assert site.dispatch.left_alone() == frozenset(), "the next report may be sent"
    assert site.later().state is State.SCHEDULED
    site.dispatch._absences.note("pacs", "pacs did not answer within 30 s", timedelta(seconds=30))
    site.answer(committed("2.25.1"))
    assert site.dispatch(item).outcome == Done("committed")
    assert site.dispatch.left_alone() == {"pacs"}


def test_a_destination_that_is_not_to_be_asked_is_not(engine: Engine, tmp_path: Path) -> None:
    site = Site(engine, tmp_path, confirm="none")
    item = site.work()
    assert (item.state, item.reason, site.archive.asked) == (State.COMPLETED, "status 0x0000", [])
