"""What is removed when its time is over, and all that must not be."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, select

from dicom_node.config import Store
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationRefusedError, NotFoundError, OutOfResourcesError
from dicom_node.domain.types import Destination, Ingested, Kind, Verdict
from dicom_node.pipeline import admin, rerun
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from dicom_node.pipeline.retention import Pruned, prune, remove_going
from dicom_node.queue import items
from dicom_node.store import reports as stored
from dicom_node.store import retention
from tests.integration.test_pipeline import Site, _again
from tests.phantoms import chest_dataset

DAY = 86_400.0


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def answered(site: Site, *datasets: Dataset, calling: str = "CR1") -> Dataset:
    """Let images through to their delivered report and return the first."""
    for ds in datasets:
        site.receive(ds, calling=calling)
    site.pass_quiet_time()
    site.work()
    return datasets[0]


def images(site: Site) -> list[Path]:
    return sorted((site.files.root / "instances").rglob("*.dcm"))


def reports(site: Site) -> list[Path]:
    return sorted((site.files.root / "reports").rglob("*.dcm"))


def pruned(site: Site, **keys: Any) -> Pruned:
    return prune(site.engine, site.files, Store(**keys), site.clock)


def kept(site: Site) -> list[str]:
    with reading(site.engine) as conn:
        return list(conn.execute(select(schema.instances.c.kept).order_by(schema.instances.c.id)).scalars())


def test_by_default_everything_is_kept_for_ever(site: Site) -> None:
    answered(site, chest_dataset())
    site.clock.forward(10_000 * DAY)
    assert pruned(site).studies == ()
    assert len(images(site)) == 1


def test_a_delivered_study_older_than_the_limit_loses_its_files_and_keeps_its_rows(site: Site) -> None:
    first, second = chest_dataset(seed=1), chest_dataset(seed=2)
    answered(site, first)
    site.clock.forward(2 * DAY)
    answered(site, second)
    site.clock.forward(29 * DAY)
    done = pruned(site, retention_days=30)
    assert [study.study_instance_uid for study, _ in done.studies] == [first.StudyInstanceUID]
    assert (len(images(site)), len(reports(site))) == (1, 2)
    assert kept(site) == ["gone", "yes"]
    shown = admin.show_study(site.engine, first.StudyInstanceUID)
    assert [row["verdict"] for row in shown["reports"]] == [Verdict.BELOW]
    assert shown["events"][-1]["kind"] == "study.pruned"
    assert shown["events"][-1]["detail"]["why"] == "older than 30 days"
    assert pruned(site, retention_days=30).studies == ()


def test_a_dry_run_says_what_would_go_and_changes_nothing(site: Site) -> None:
    answered(site, chest_dataset())
    site.clock.forward(31 * DAY)
    told = prune(site.engine, site.files, Store(retention_days=30), site.clock, dry_run=True)
    assert len(told.studies) == 1
    assert told.size > 0
    assert (kept(site), len(images(site))) == (["yes"], 1)


def _not_delivered(site: Site) -> None:
    def answer(destination: Destination) -> int:
        if destination.name == "vna":
            raise DestinationRefusedError("0xA900")
        return 0

    site.peer.answer = answer
    answered(site, chest_dataset())


def _canceled(site: Site) -> None:
    _not_delivered(site)
    (item,) = (i for i in site.items(Kind.DELIVER) if i.destination == "vna")
    admin.cancel(site.engine, item.id, site.clock())


def _marked_normal(site: Site) -> None:
    ds = answered(site, chest_dataset())
    admin.mark(site.engine, ds.StudyInstanceUID, "abnormal", "a", site.clock())
    admin.mark(site.engine, ds.StudyInstanceUID, "normal", "b", site.clock())


def _never_analysed(site: Site) -> None:
    site.receive(chest_dataset())
    site.pass_quiet_time()


def _still_open(site: Site) -> None:
    ds = answered(site, chest_dataset())
    site.receive(_again(ds), association="late")


def _without_destinations(site: Site) -> None:
    site.analyse._destinations = ()
    answered(site, chest_dataset())


def _analysis_failed(site: Site) -> None:
    def judge(_ds: Dataset) -> Any:
        raise RuntimeError

    site.judge = judge
    site.receive(chest_dataset())
    site.pass_quiet_time()
    for _ in range(4):
        site.work()
        site.clock.forward(1000)


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(_not_delivered, id="a delivery that failed waits for a person"),
        pytest.param(_canceled, id="a delivery was canceled"),
        pytest.param(_marked_normal, id="marked normal"),
        pytest.param(_never_analysed, id="not analysed yet"),
        pytest.param(_still_open, id="a late image has come"),
        pytest.param(_without_destinations, id="delivered nowhere"),
        pytest.param(_analysis_failed, id="a failed analysis waits for a person"),
    ],
)
def test_a_study_stays_however_old(site: Site, prepare: Any) -> None:
    prepare(site)
    held = images(site)
    site.clock.forward(1000 * DAY)
    assert pruned(site, retention_days=1, retention_megabytes=1, report_retention_days=1).studies == ()
    assert images(site) == held != []
    assert set(kept(site)) == {"yes"}


def test_a_study_of_the_selftest_needs_no_delivery(site: Site) -> None:
    answered(site, chest_dataset(), calling=SELFTEST_AE_TITLE)
    assert site.items(Kind.DELIVER) == []
    site.clock.forward(2 * DAY)
    assert len(pruned(site, retention_days=1).studies) == 1
    assert images(site) == []


def test_above_the_limit_of_megabytes_the_oldest_go_until_it_is_kept(site: Site) -> None:
    studies = [chest_dataset(seed=n, shape=(700, 600)) for n in range(4)]
    for ds in studies:
        answered(site, ds)
        site.clock.forward(60)
    with reading(site.engine) as conn:
        assert retention.held_bytes(conn) > 3_000_000
    done = pruned(site, retention_megabytes=2)
    assert [study.study_instance_uid for study, _ in done.studies] == [
        ds.StudyInstanceUID for ds in studies[:2]
    ]
    with reading(site.engine) as conn:
        assert 1_000_000 < retention.held_bytes(conn) <= 2_000_000


def test_reports_of_pruned_studies_go_later_and_the_object_is_still_known_as_our_own(site: Site) -> None:
    answered(site, chest_dataset())
    site.clock.forward(31 * DAY)
    limits = {"retention_days": 30, "report_retention_days": 100}
    assert pruned(site, **limits).reports == ()
    assert len(reports(site)) == 1
    site.clock.forward(70 * DAY)
    assert len(pruned(site, **limits).reports) == 1
    assert reports(site) == []
    own = dcmread(BytesIO(site.peer.kept[0][1]))
    with reading(site.engine) as conn:
        assert stored.is_own(conn, own.SOPInstanceUID)


def test_a_late_image_of_a_pruned_study_gets_a_report_of_its_own_that_names_its_predecessor(site: Site) -> None:
    ds = answered(site, chest_dataset())
    site.clock.forward(31 * DAY)
    pruned(site, retention_days=30)
    late = _again(ds)
    assert site.receive(late, association="late") is Ingested.NEW
    site.associations.ended("late", "released")
    site.clock.forward(10)
    site.gather()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW, Verdict.BELOW]
    first, second = (dcmread(BytesIO(content)) for name, content in site.peer.kept if name == "pacs")
    (predecessor,) = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert predecessor.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert late.SOPInstanceUID in str(second)
    assert ds.SOPInstanceUID not in str(second.CurrentRequestedProcedureEvidenceSequence)


def test_a_whole_study_that_comes_again_with_one_more_image_is_scored_as_a_whole(site: Site) -> None:
    ds = answered(site, chest_dataset())
    site.clock.forward(31 * DAY)
    pruned(site, retention_days=30)
    late = _again(ds)
    assert site.receive(late, association="late") is Ingested.NEW
    assert site.receive(ds, association="late") is Ingested.DUPLICATE
    site.associations.ended("late", "released")
    site.clock.forward(10)
    site.gather()
    site.work()
    evidence = str(dcmread(BytesIO(site.peer.kept[-1][1])).CurrentRequestedProcedureEvidenceSequence)
    assert ds.SOPInstanceUID in evidence
    assert late.SOPInstanceUID in evidence


def test_a_pruned_image_that_comes_again_is_held_again_and_not_answered_again(site: Site) -> None:
    ds = answered(site, chest_dataset())
    sent = len(site.peer.kept)
    site.clock.forward(31 * DAY)
    pruned(site, retention_days=30)
    assert site.receive(ds) is Ingested.DUPLICATE
    assert (kept(site), len(images(site))) == (["yes"], 1)
    site.pass_quiet_time()
    site.work()
    assert len(site.peer.kept) == sent
    assert pruned(site, retention_days=30).studies == ()  # its last image came just now
    site.clock.forward(31 * DAY)
    assert len(pruned(site, retention_days=30).studies) == 1


def test_a_pruned_study_that_was_sent_again_to_be_analysed_is_there_when_it_is(site: Site) -> None:
    ds = answered(site, chest_dataset())
    site.clock.forward(31 * DAY)
    pruned(site, retention_days=30)
    site.receive(ds)
    pruned(site, retention_days=30)  # as it is done every hour
    with writing(site.engine) as conn:
        assert rerun.rerun(conn, ds.StudyInstanceUID, site.clock()).state == "scheduled"
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW, Verdict.BELOW]


def test_a_death_between_rows_and_files_is_made_good_by_the_next_run(site: Site) -> None:
    answered(site, chest_dataset())
    with writing(site.engine) as conn:
        (study,) = retention.over(conn, site.clock(), SELFTEST_AE_TITLE)
        retention.let_images_go(conn, study, "test", site.clock())
    assert (kept(site), len(images(site))) == (["going"], 1)
    pruned(site)
    assert (kept(site), images(site)) == (["gone"], [])


def test_a_death_between_files_and_rows_is_made_good_by_the_next_run(site: Site) -> None:
    answered(site, chest_dataset())
    with writing(site.engine) as conn:
        (study,) = retention.over(conn, site.clock(), SELFTEST_AE_TITLE)
        retention.let_images_go(conn, study, "test", site.clock())
    images(site)[0].unlink()
    pruned(site)
    assert kept(site) == ["gone"]


def test_an_image_that_comes_again_while_its_file_is_being_removed_is_refused_and_not_lost(site: Site) -> None:
    ds = answered(site, chest_dataset())
    with writing(site.engine) as conn:
        (study,) = retention.over(conn, site.clock(), SELFTEST_AE_TITLE)
        retention.let_images_go(conn, study, "test", site.clock())
    sync = site.files._fsync

    def meanwhile(descriptor: int) -> None:  # the file was found good; its row is not locked yet
        sync(descriptor)
        site.files._fsync = sync
        remove_going(site.engine, site.files)

    site.files._fsync = meanwhile
    with pytest.raises(OutOfResourcesError, match="send the image again"):
        site.receive(ds)
    assert kept(site) == ["gone"]
    assert site.receive(ds) is Ingested.DUPLICATE
    assert (kept(site), len(images(site))) == (["yes"], 1)


def test_retrying_a_canceled_analysis_of_a_pruned_study_asks_for_its_images(site: Site) -> None:
    def judge(_ds: Dataset) -> Any:
        raise RuntimeError

    healthy, site.judge = site.judge, judge
    site.receive(chest_dataset())
    site.pass_quiet_time()
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    (item,) = site.items(Kind.ANALYSE)
    site.judge = healthy
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    site.clock.forward(2 * DAY)
    assert len(pruned(site, retention_days=1).studies) == 1
    with reading(site.engine) as conn:
        assert items.get(conn, item.id).state == "CANCELED"
    with pytest.raises(NotFoundError, match="send them again"):
        admin.retry(site.engine, item.id, site.clock())
