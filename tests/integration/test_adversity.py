"""What a study's way through the node withstands: broken elements, absent peers, late images."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Connection, Engine, text

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import (
    CannotUnderstandError,
    DatabaseError,
    DestinationAwayError,
    NodeError,
)
from dicom_node.domain.routing import Route
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Done, ImageResult, Kind, Verdict, WorkItem
from dicom_node.pipeline import admin
from dicom_node.pipeline.process import Prepared
from dicom_node.queue import items
from dicom_node.report.text import render
from dicom_node.store import studies
from tests.fakes import scored
from tests.integration.test_pipeline import QUIET, Site, _again
from tests.phantoms import chest_dataset


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def _fail_once(site: Site) -> None:
    """Make the next analysis fail, and those after it succeed."""

    def judge(_ds: Dataset) -> ImageResult:
        site.judge = scored
        raise RuntimeError

    site.judge = judge


def _failed_analysis(site: Site, ds: Dataset) -> WorkItem:
    """Return the item of an analysis that failed every time and was answered with a *failed* report."""

    def judge(_ds: Dataset) -> ImageResult:
        raise RuntimeError

    site.judge = judge
    site.receive(ds)
    site.pass_quiet_time()
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    site.judge = scored
    (item,) = site.items(Kind.ANALYSE)
    assert item.state is State.FAILED
    return item


def test_an_image_with_a_broken_element_that_no_score_needs_is_scored_all_the_same(site: Site) -> None:
    ds = chest_dataset()
    ds.add_new(0x00189FF0, "SH", "abcd")
    site.receive(ds, spoil=lambda content: content.replace(b"\x9fSH\x04\x00abcd", b"\x9fFD\x04\x00abcd"))
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]


def test_a_patient_id_that_its_character_set_cannot_hold_reaches_the_report_byte_for_byte(site: Site) -> None:
    ds = chest_dataset(SpecificCharacterSet="ISO_IR 192", PatientID="ID-12345")
    site.receive(ds, spoil=lambda content: content.replace(b"ID-12345", b"ID-\xc4\xd6\xdc45"))
    site.pass_quiet_time()
    site.work()
    assert b"ID-\xc4\xd6\xdc45" in site.peer.kept[0][1]


def test_a_study_uid_of_the_wrong_kind_is_not_understood_and_no_fault_of_the_node(site: Site) -> None:
    ds = chest_dataset(StudyInstanceUID="2.25.7777")
    with pytest.raises(CannotUnderstandError):
        site.receive(
            ds, spoil=lambda content: content.replace(b"UI\x0a\x002.25.7777\x00", b"FD\x0a\x002.25.7777\x00")
        )


def test_an_image_whose_needed_element_is_broken_does_not_fail_the_good_one_beside_it(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    other = _again(ds, PixelPaddingValue=7)
    site.receive(other, spoil=lambda content: content.replace(b"\x28\x00\x20\x01US", b"\x28\x00\x20\x01FD"))
    site.judge = lambda image: (image.get("PixelPaddingValue"), scored(image))[1]
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    assert "has not the length that its VR asks for" in render(site.peer.kept[0][1])


def test_rows_that_the_database_refuses_end_as_a_failed_item_and_not_as_a_dead_worker(site: Site) -> None:
    analyse = site.analyse

    class Refused:
        def __call__(self, item: WorkItem) -> Prepared:
            def commit(conn: Connection) -> None:
                conn.execute(text("INSERT INTO node (key, value) VALUES ('x', NULL)"))

            return Prepared(Done(), commit)

        def give_up(self, item: WorkItem, reason: str) -> Prepared:
            return analyse.give_up(item, reason)

    site.worker._handlers[Kind.ANALYSE] = Refused()  # type: ignore[index]
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]
    (item,) = site.items(Kind.ANALYSE)
    assert (item.state, item.attempts) == (State.FAILED, 3)
    assert "unexpected IntegrityError" in item.reason


def test_a_stored_image_that_is_gone_is_answered_and_can_be_analysed_again_once_restored(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    (kept,) = (site.files.root / "instances").rglob("*.dcm")
    hidden = kept.rename(kept.with_suffix(".away"))
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    (item,) = site.items(Kind.ANALYSE)
    assert item.state is State.FAILED
    assert ds.SOPInstanceUID in item.reason
    hidden.rename(kept)
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]


def test_a_stored_image_whose_pixels_were_damaged_is_not_scored_but_analysed_again_once_restored(
    site: Site,
) -> None:
    ds = chest_dataset()
    site.receive(ds)
    site.pass_quiet_time()
    (kept,) = (site.files.root / "instances").rglob("*.dcm")
    kept.chmod(0o600)
    content = kept.read_bytes()
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    (item,) = site.items(Kind.ANALYSE)
    assert item.state is State.FAILED
    assert f"image {ds.SOPInstanceUID}" in item.reason
    assert "is damaged" in item.reason
    kept.write_bytes(content)
    admin.retry(site.engine, item.id, site.clock())
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]


def test_no_report_takes_its_patient_from_a_stored_image_that_was_damaged(site: Site) -> None:
    ds = chest_dataset(PatientID="11111111")
    site.receive(ds)
    site.pass_quiet_time()
    (kept,) = (site.files.root / "instances").rglob("*.dcm")
    kept.chmod(0o600)
    kept.write_bytes(_in_data_set(kept.read_bytes(), b"11111111", b"11111131"))
    site.analyse._routes = {"pacs": Route(modalities=frozenset({ds.Modality}))}
    for _ in range(4):
        site.work()
        site.clock.forward(1000)
    report = dcmread(BytesIO(next(content for name, content in site.peer.kept if name == "pacs")))
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]
    assert (report.StudyInstanceUID, report.PatientID) == (ds.StudyInstanceUID, "")


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_name_where_a_uid_belongs_is_refused_without_being_told(site: Site, keyword: str) -> None:
    ds = chest_dataset(**{keyword: "1.2.3.4.5.6"})
    with pytest.raises(NodeError) as caught:
        site.receive(ds, spoil=lambda content: _in_data_set(content, b"1.2.3.4.5.6\0", b"SECRET^MARIA"))
    assert keyword in str(caught.value)
    assert "SECRET" not in str(caught.value)


def _in_data_set(content: bytes, old: bytes, new: bytes) -> bytes:
    """Replace in the data set and leave the file meta as it is."""
    start = 144 + int.from_bytes(content[140:144], "little")
    return content[:start] + content[start:].replace(old, new)


def test_revisions_are_answered_in_their_order_even_if_the_first_has_to_wait(site: Site) -> None:
    ds = chest_dataset()
    _fail_once(site)
    site.receive(ds)
    site.pass_quiet_time()
    assert site.worker.step()
    site.receive(_again(ds), association="b")
    site.associations.ended("b", "released")
    with writing(site.engine) as conn:
        first = items.listing(conn, kind=Kind.ANALYSE)[0]
        assert studies.close_revision(conn, ds.StudyInstanceUID, 2, site.clock())
        items.schedule(conn, Kind.ANALYSE, ds.StudyInstanceUID, 2, site.clock())
    assert first.available_at > site.clock()
    assert not site.worker.step()
    site.clock.forward(10)
    site.work()
    reports = [dcmread(BytesIO(content)) for name, content in site.peer.kept if name == "pacs"]
    first_report, second_report = sorted(reports, key=lambda r: "PredecessorDocumentsSequence" in r)
    predecessor = second_report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert predecessor.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first_report.SOPInstanceUID


def test_a_destination_that_lets_every_sender_wait_holds_up_neither_the_others_nor_the_analyses(
    site: Site,
) -> None:
    def answer(destination: Destination) -> int:
        if destination.name == "pacs":
            site.clock.forward(30)
            raise DestinationAwayError("pacs did not answer within 30 s")
        return 0

    site.peer.answer = answer
    for seed in range(20):
        site.receive(chest_dataset(seed=seed), association="a")
    site.pass_quiet_time()
    began = site.clock()
    while sum(name == "vna" for name, _ in site.peer.kept) < 20:
        assert site.worker.step()
    assert (site.clock() - began).total_seconds() <= 300
    waiting = [i for i in site.items(Kind.DELIVER) if i.destination == "pacs"]
    assert {i.state for i in waiting} == {State.SCHEDULED}
    assert all("pacs did not answer within 30 s" in i.reason for i in waiting if i.attempts)
    site.peer.answer = lambda _d: 0
    for _ in range(3):
        site.clock.forward(1000)
        site.work()
    assert sum(name == "pacs" for name, _ in site.peer.kept) == 20


def test_a_retry_while_new_images_arrive_leaves_their_revision_to_gathering(site: Site) -> None:
    ds = chest_dataset()
    item = _failed_analysis(site, ds)
    site.receive(_again(ds), association="late")
    retried = admin.retry(site.engine, item.id, site.clock())
    assert (retried.item_id, retried.revision) == (None, 2)
    assert [i.revision for i in site.items(Kind.ANALYSE)] == [1]
    site.receive(_again(ds, SOPInstanceUID="2.25.99"), association="late")
    site.associations.ended("late", "released")
    site.clock.forward(QUIET + 1)
    assert site.gather() == 1
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]
    assert [i.state for i in site.items(Kind.ANALYSE)] == [State.CANCELED, State.COMPLETED]


def test_a_retry_by_a_clock_that_is_behind_leaves_no_study_without_an_answer(site: Site) -> None:
    ds = chest_dataset()
    item = _failed_analysis(site, ds)
    site.receive(_again(ds), association="late")
    site.associations.ended("late", "released")
    site.clock.forward(-30)
    admin.retry(site.engine, item.id, site.clock())
    for _ in range(5):
        site.work()
        site.clock.forward(4)
    site.clock.forward(60)
    site.gather()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]


def test_a_missing_table_is_a_database_error_that_tells_what_is_missing(site: Site) -> None:
    with pytest.raises(DatabaseError, match="no_such_table"), reading(site.engine) as conn:
        conn.execute(text("SELECT 1 FROM no_such_table"))
