"""A study's way through the node, on both databases, with a clock that stands still and a scorer that obeys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, func, select, update

from dicom_node.config import Gather, Queue
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    CannotUnderstandError,
    DataSetMismatchError,
    DestinationAwayError,
    DestinationRefusedError,
    IllegalTransitionError,
    InvalidIdentifierError,
    NodeError,
)
from dicom_node.domain.examined import Examined
from dicom_node.domain.explanation import Explanation
from dicom_node.domain.states import State
from dicom_node.domain.types import (
    Destination,
    ImageResult,
    Ingested,
    Kind,
    Received,
    StudyResult,
    Verdict,
    WorkItem,
)
from dicom_node.pipeline import admin, image
from dicom_node.pipeline.custody import Associations
from dicom_node.pipeline.dispatch import Dispatch
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.pipeline.ingest import Ingest
from dicom_node.pipeline.process import SELFTEST_AE_TITLE, Analyse, Prepared
from dicom_node.pipeline.sweep import rescue_leases, sweep_incoming
from dicom_node.pipeline.worker import Worker
from dicom_node.queue import items, leases
from dicom_node.report import sr, text
from dicom_node.report.sr import Equipment
from dicom_node.store import reports
from dicom_node.store.files import FileStore
from tests.fakes import ManualClock, Peer, refused, scored
from tests.phantoms import chest_dataset

DEVICE = "2.25.1"
QUIET = 5.0


class Site:
    """A node without its network: everything between the C-STORE handler and the SCU."""

    def __init__(self, engine: Engine, root: Path, objects: tuple[str, ...] = ()) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.files = FileStore(root, 0)
        self.ingest = Ingest(engine, self.files, DEVICE, self.clock)
        self.associations = Associations(engine, self.clock)
        self.peer = Peer()
        self.judge: Callable[[Dataset], ImageResult] = scored
        self.explain: Callable[[ImageResult], Explanation | None] = lambda _result: None
        self.destinations = {n: Destination(n, n.upper(), "127.0.0.1", 104) for n in ("pacs", "vna")}
        self.destinations["pacs"] = replace(self.destinations["pacs"], objects=objects)
        self.queue = Queue(analyse_attempts=3, deliver_attempts=4, lease_seconds=60, backoff_seconds=1)
        self.analyse = Analyse(
            engine,
            self.files,
            self._score,
            Equipment(DEVICE, "m", "n", "0", "1", "site", "NODE", "series"),
            tuple(self.destinations),
            self.clock,
            objects={name: destination.objects for name, destination in self.destinations.items()},
        )
        self.dispatch = Dispatch(engine, self.files, self.peer.send, self.destinations, self.clock)
        self.worker = Worker(
            engine,
            self.queue,
            {Kind.ANALYSE: self.analyse, Kind.DELIVER: self.dispatch},
            "test",
            self.clock,
            lambda: 0.0,
        )
        self._sent = 0
        self.banks: list[str] = []
        """Which bank was asked for, image by image; "" where none was named."""

    def _score(self, path: Path, bank: str) -> Examined:
        self.banks.append(bank)
        result = image.analyse(path, lambda ds: self.judge(ds))
        return Examined(result, self.explain(result))

    def receive(
        self,
        ds: Dataset,
        association: str = "a",
        calling: str = "CR1",
        spoil: Callable[[bytes], bytes] = lambda content: content,
    ) -> Ingested:
        """Do what the C-STORE handler does, with a data set as a peer would send it, or broken by `spoil`."""
        self._sent += 1
        path = self.files.incoming / f"{self._sent}.dcm"
        ds.save_as(path, enforce_file_format=True)
        path.write_bytes(spoil(path.read_bytes()))
        meta = dcmread(path, stop_before_pixels=True).file_meta
        offset = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
        received = Received(
            path,
            offset,
            str(ds.SOPClassUID),
            str(ds.SOPInstanceUID),
            str(meta.TransferSyntaxUID),
            calling,
            "NODE",
            "127.0.0.1",
            association,
            self.clock(),
        )
        try:
            return self.ingest(received)
        finally:
            path.unlink(missing_ok=True)

    def gather(self) -> int:
        return close_quiet_revisions(self.engine, Gather(quiet_seconds=QUIET), self.clock)

    def pass_quiet_time(self) -> int:
        self.associations.ended("a", "released")
        self.clock.forward(QUIET + 1)
        return self.gather()

    def work(self) -> None:
        while self.worker.step():
            pass

    def count(self, table: str) -> int:
        with reading(self.engine) as conn:
            return int(
                conn.execute(select(func.count()).select_from(schema.metadata.tables[table])).scalar_one()
            )

    def items(self, kind: Kind) -> list[WorkItem]:
        with reading(self.engine) as conn:
            return sorted(items.listing(conn, kind=kind), key=lambda item: item.id)

    def verdicts(self, study: str) -> list[Verdict]:
        with reading(self.engine) as conn:
            return [report.verdict for report in reports.of_study(conn, study)]

    def events(self) -> list[str]:
        with reading(self.engine) as conn:
            return [row.kind for row in conn.execute(select(schema.events.c.kind).order_by(schema.events.c.id))]


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def _again(ds: Dataset, **changes: object) -> Dataset:
    """Return another image of the same study."""
    other = chest_dataset(seed=2, StudyInstanceUID=ds.StudyInstanceUID, SeriesInstanceUID=ds.SeriesInstanceUID)
    for keyword, value in changes.items():
        setattr(other, keyword, value)
    other.file_meta.MediaStorageSOPInstanceUID = other.SOPInstanceUID
    return other


def test_a_study_becomes_one_report_at_each_destination(site: Site) -> None:
    ds = chest_dataset()
    assert site.receive(ds) is Ingested.NEW
    assert site.pass_quiet_time() == 1
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    assert sorted(name for name, _ in site.peer.kept) == ["pacs", "vna"]
    assert len({content for _, content in site.peer.kept}) == 1
    report = dcmread(BytesIO(site.peer.kept[0][1]))
    assert report.StudyInstanceUID == ds.StudyInstanceUID
    assert text.facts(report)["bank_hash"] == "b" * 64
    assert {item.state for kind in Kind for item in site.items(kind)} == {State.COMPLETED}


def test_the_bytes_are_kept_as_received(site: Site) -> None:
    ds = chest_dataset()
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    site.receive(ds)
    kept = list((site.files.root / "instances").rglob("*.dcm"))
    assert [path.read_bytes() for path in kept] == [buffer.getvalue()]


def test_a_study_is_not_closed_while_its_association_is_open_or_was_just_heard_of(site: Site) -> None:
    site.receive(chest_dataset())
    site.clock.forward(QUIET + 1)
    assert site.gather() == 0
    site.associations.ended("a", "released")
    assert site.gather() == 1


def test_an_association_whose_receiver_died_does_not_hold_a_study_for_ever(site: Site) -> None:
    site.receive(chest_dataset())
    site.clock.forward(Gather().open_association_seconds + 1)
    assert site.gather() == 1


def test_the_same_image_again_changes_nothing(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    before = [site.count(table) for table in ("instances", "revisions", "work_items", "reports")]
    assert site.receive(ds, association="b") is Ingested.DUPLICATE
    site.pass_quiet_time()
    site.work()
    assert [site.count(table) for table in ("instances", "revisions", "work_items", "reports")] == before
    assert not list(site.files.incoming.iterdir())


def test_other_bytes_under_the_same_uid_are_kept_apart_and_told(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    other = chest_dataset(seed=3, StudyInstanceUID=ds.StudyInstanceUID, SOPInstanceUID=ds.SOPInstanceUID)
    assert site.receive(other) is Ingested.CONFLICT
    site.pass_quiet_time()
    seen: list[str] = []
    site.judge = lambda image: (seen.append(image.PatientID), scored(image))[1]
    site.work()
    assert seen == [ds.PatientID]
    assert len(list((site.files.root / "instances").rglob("*.dcm"))) == 2
    assert "instance.conflict" in site.events()


def test_a_study_of_conflicting_copies_alone_is_answered_too(site: Site) -> None:
    first = chest_dataset()
    site.receive(first)
    other = chest_dataset(seed=3, StudyInstanceUID="2.25.77", SOPInstanceUID=first.SOPInstanceUID)
    assert site.receive(other) is Ingested.CONFLICT
    site.pass_quiet_time()
    site.work()
    assert site.verdicts("2.25.77") == [Verdict.NOT_ANALYSED]


def test_a_late_image_opens_the_next_revision_whose_report_names_the_first(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    site.receive(_again(ds), association="a2")
    site.associations.ended("a2", "released")
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW, Verdict.BELOW]
    first, second = (dcmread(BytesIO(c)) for name, c in site.peer.kept if name == "pacs")
    predecessor = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert len(text.facts(second)["images"]) == 2


def test_images_that_may_not_be_scored_are_answered_with_the_reason(site: Site) -> None:
    ds = chest_dataset()
    site.judge = lambda image: refused(image, "view", "view position is LL; PA or AP would be right")
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.NOT_ANALYSED]
    assert "view position is LL" in text.render(site.peer.kept[0][1])


def test_an_analysis_that_fails_every_time_is_answered_with_a_failed_report_and_waits_for_a_person(
    site: Site,
) -> None:
    def explode(_ds: Dataset) -> ImageResult:
        raise RuntimeError("MARIA^SECRET")

    ds = chest_dataset()
    site.judge = explode
    site.receive(ds)
    site.pass_quiet_time()
    for _ in range(5):
        site.work()
        site.clock.forward(1000)
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]
    (item,) = site.items(Kind.ANALYSE)
    assert (item.state, item.attempts) == (State.FAILED, 3)
    assert "gave up after 3 attempts: unexpected RuntimeError" in item.reason
    assert "SECRET" not in item.reason
    assert sorted(name for name, _ in site.peer.kept) == ["pacs", "vna"]


def test_a_person_who_retries_a_failed_analysis_gets_a_superseding_report(site: Site) -> None:
    test_an_analysis_that_fails_every_time_is_answered_with_a_failed_report_and_waits_for_a_person(site)
    site.judge = scored
    (item,) = site.items(Kind.ANALYSE)
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    assert site.verdicts(item.study_instance_uid) == [Verdict.FAILED, Verdict.BELOW]
    assert [i.state for i in site.items(Kind.ANALYSE)] == [State.CANCELED, State.COMPLETED]
    assert len(site.peer.kept) == 4


def test_a_completed_item_cannot_be_retried(site: Site) -> None:
    test_a_study_becomes_one_report_at_each_destination(site)
    with pytest.raises(IllegalTransitionError):
        admin.retry(site.engine, site.items(Kind.ANALYSE)[0].id, site.clock())


def test_a_worker_that_died_every_time_is_given_up_on(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    for _ in range(3):
        with writing(site.engine) as conn:
            assert leases.claim(conn, "dying", site.clock(), 60, f"t{site.clock.at}") is not None
        site.clock.forward(61)
        assert rescue_leases(site.engine, site.clock) == 1
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]


def test_an_attempt_that_fails_once_is_made_again(site: Site) -> None:
    attempts: list[int] = []

    def once(ds: Dataset) -> ImageResult:
        attempts.append(1)
        if len(attempts) == 1:
            raise MemoryError
        return scored(ds)

    ds = chest_dataset()
    site.judge = once
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == []
    site.clock.forward(10)
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]


def test_a_destination_that_is_away_gets_the_same_bytes_later(site: Site) -> None:
    tries: list[str] = []

    def away(destination: Destination) -> int:
        tries.append(destination.name)
        if destination.name == "pacs" and tries.count("pacs") < 3:
            raise DestinationAwayError("pacs did not answer")
        return 0xB000

    site.peer.answer = away
    site.receive(chest_dataset())
    site.pass_quiet_time()
    for _ in range(4):
        site.work()
        site.clock.forward(60)
    assert [name for name, _ in site.peer.kept] == ["vna", "pacs"]
    assert site.peer.kept[0][1] == site.peer.kept[1][1]
    with reading(site.engine) as conn:
        assert {row.status for row in conn.execute(select(schema.deliveries.c.status))} == {0xB000}


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(DestinationRefusedError("0x0122: SOP class not supported"), 1), (DestinationAwayError("away"), 4)],
)
def test_a_delivery_that_cannot_succeed_waits_with_its_reason_and_does_not_hold_up_the_other(
    site: Site, error: NodeError, attempts: int
) -> None:
    def answer(destination: Destination) -> int:
        if destination.name == "pacs":
            raise error
        return 0

    site.peer.answer = answer
    site.receive(chest_dataset())
    site.pass_quiet_time()
    for _ in range(6):
        site.work()
        site.clock.forward(1000)
    pacs, vna = site.items(Kind.DELIVER)
    assert (pacs.state, pacs.attempts, vna.state) == (State.FAILED, attempts, State.COMPLETED)
    assert str(error) in pacs.reason
    site.peer.answer = lambda _d: 0
    admin.retry(site.engine, pacs.id, site.clock())
    site.work()
    assert [name for name, _ in site.peer.kept] == ["vna", "pacs"]


def test_a_delivery_to_a_destination_that_is_no_longer_configured_says_so(site: Site) -> None:
    site.receive(chest_dataset())
    site.pass_quiet_time()
    site.worker.step()
    del site.destinations["vna"]
    site.work()
    failed = [item for item in site.items(Kind.DELIVER) if item.state is State.FAILED]
    assert [item.destination for item in failed] == ["vna"]
    assert "not configured (configured: pacs)" in failed[0].reason


def test_a_late_acknowledgement_writes_no_report_and_no_delivery(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()

    def slow(image: Dataset) -> ImageResult:
        site.clock.forward(61)
        rescue_leases(site.engine, site.clock)
        with writing(site.engine) as conn:
            assert leases.claim(conn, "other", site.clock(), 60, "t2") is not None
        return scored(image)

    site.judge = slow
    assert site.worker.step()
    assert site.verdicts(ds.StudyInstanceUID) == []
    assert site.items(Kind.DELIVER) == []
    assert site.items(Kind.ANALYSE)[0].state is State.IN_PROGRESS


def test_a_retry_builds_the_same_bytes_again(site: Site) -> None:
    site.receive(chest_dataset())
    site.pass_quiet_time()
    with writing(site.engine) as conn:
        lease = leases.claim(conn, "x", site.clock(), 60, "t")
    assert lease is not None
    digests = set()
    for _ in range(2):
        site.clock.forward(10)
        prepared: Prepared = site.analyse(lease.item)
        assert prepared.outcome is not None
        digests |= {path.name for path in (site.files.root / "reports").rglob("*.dcm")}
    assert len(digests) == 1


def test_a_self_test_study_is_answered_and_leaves_the_node_for_nowhere(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds, calling=SELFTEST_AE_TITLE)
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    assert site.peer.kept == []


def test_an_object_that_this_node_made_is_taken_and_never_processed(site: Site) -> None:
    assert site.receive(chest_dataset(DeviceUID=DEVICE)) is Ingested.OWN
    own = sr.build(
        StudyResult("2.25.1", 1, Verdict.FAILED, (), "gone"),
        [],
        Equipment(DEVICE, "a", "b", "c", "d"),
        site.clock(),
    )
    assert site.receive(dcmread(BytesIO(own.content))) is Ingested.OWN
    assert site.pass_quiet_time() == 0
    assert (site.count("instances"), "instance.own" in site.events()) == (0, True)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"StudyInstanceUID": None}, CannotUnderstandError),
        ({"SeriesInstanceUID": ""}, CannotUnderstandError),
        ({"StudyInstanceUID": "1.2..3"}, InvalidIdentifierError),
        ({"StudyInstanceUID": "../../etc/passwd"}, InvalidIdentifierError),
    ],
)
def test_an_image_that_names_no_proper_study_is_refused_and_leaves_nothing(
    site: Site, changes: dict[str, object], error: type[NodeError]
) -> None:
    with pytest.raises(error):
        site.receive(chest_dataset(**changes))
    assert site.count("instances") == 0
    assert not list((site.files.root / "instances").rglob("*.dcm"))


def test_an_image_that_is_not_what_the_command_said_is_refused(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    ds = chest_dataset()
    ds.save_as(path, enforce_file_format=True)
    received = Received(path, 0, ds.SOPClassUID, "2.25.5", "1.2", "A", "B", "h", "a", site.clock())
    with pytest.raises(DataSetMismatchError, match=r"in the command 2\.25\.5"):
        site.ingest(received)


@pytest.mark.parametrize(
    "content", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 200, b"\0" * 128 + b"DICM" + b"\xff" * 99]
)
def test_bytes_that_are_no_data_set_are_not_understood(site: Site, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(NodeError) as caught:
        site.ingest(Received(path, 0, "1.2", "1.2", "1.2", "A", "B", "h", "a", site.clock()))
    assert caught.value.dimse_status in {0xC000, 0xA900}


def test_a_stored_file_that_was_damaged_makes_a_failed_report(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    (path,) = (site.files.root / "instances").rglob("*.dcm")
    path.chmod(0o600)
    path.write_bytes(b"\0" * 10)
    for _ in range(3):
        site.work()
        site.clock.forward(1000)
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]


def test_files_of_cut_off_transfers_go_after_an_hour_and_not_before(site: Site) -> None:
    import os

    stale, fresh = site.files.incoming / "stale", site.files.incoming / "fresh"
    for path, age in ((stale, 3601), (fresh, 10)):
        path.touch()
        moment = site.clock().timestamp() - age
        os.utime(path, (moment, moment))
    assert sweep_incoming(site.files, site.clock) == 1
    assert fresh.exists()


def test_what_a_person_sees_of_a_study_tells_its_whole_story_without_the_patient(site: Site) -> None:
    ds = chest_dataset(PatientName="MARIA^SECRET", PatientID="ID-SECRET", PatientBirthDate="19010203")
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    (row,) = admin.list_studies(site.engine, 10)
    assert (row["study_instance_uid"], row["verdict"], row["deliveries"]) == (
        ds.StudyInstanceUID,
        "below threshold",
        2,
    )
    shown = admin.show_study(site.engine, ds.StudyInstanceUID)
    assert [len(shown[part]) for part in ("revisions", "instances", "reports", "deliveries")] == [1, 1, 1, 2]
    for mark in ("SECRET", "19010203"):
        assert mark not in str(shown)
        assert mark not in str(row)


def test_an_item_can_be_canceled_and_taken_up_again(site: Site) -> None:
    site.receive(chest_dataset())
    site.pass_quiet_time()
    (item,) = site.items(Kind.ANALYSE)
    admin.cancel(site.engine, item.id, site.clock())
    site.work()
    assert site.count("reports") == 0
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    assert site.count("reports") == 1


def test_a_database_row_that_is_gone_is_a_clear_error_and_not_a_lost_study(site: Site) -> None:
    site.receive(chest_dataset())
    site.pass_quiet_time()
    with writing(site.engine) as conn:
        conn.execute(update(schema.instances).values(revision=1, conflict=False))
        conn.execute(schema.instances.delete())
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    (item,) = site.items(Kind.ANALYSE)
    assert item.state is State.FAILED
    assert "has no image any more" in item.reason
