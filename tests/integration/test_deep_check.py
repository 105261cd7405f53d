"""The deep check finds whatever is wrong between rows and files, tells nothing else, and mends what can be mended."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, delete, select, update

from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Ingested, Kind, Verdict
from dicom_node.pipeline import admin, deep
from dicom_node.pipeline.deep import Seen
from dicom_node.pipeline.remake import remake
from dicom_node.pipeline.repair import Repair
from dicom_node.store import retention, stocktaking
from dicom_node.store.faults import NEEDS_A_PERSON, Code
from tests.integration.test_pipeline import SELFTEST_AE_TITLE, Site, _again
from tests.phantoms import chest_dataset


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def later() -> datetime:
    """Return a moment at which no file of this test is too young to be judged."""
    return datetime.now(UTC) + timedelta(minutes=30)


def found(site: Site, *, clock: Callable[[], datetime] = later) -> list[Seen]:
    return list(deep.look(site.engine, site.files, clock))


def codes(site: Site) -> list[Code]:
    return [seen.fault.code for seen in found(site)]


def mended(site: Site) -> list[Seen]:
    remade = partial(remake, site.engine, site.files, site.analyse._equipment)
    repair = Repair(site.engine, site.files, site.ingest, remade, site.clock)
    return list(deep.look(site.engine, site.files, later, repair))


def answered(site: Site, ds: Dataset | None = None, **keys: Any) -> Dataset:
    ds = chest_dataset() if ds is None else ds
    site.receive(ds, **keys)
    site.pass_quiet_time()
    site.work()
    return ds


def only(site: Site, area: str) -> Path:
    (path,) = (site.files.root / area).rglob("*.dcm")
    return path


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def events_of(site: Site, kind: str) -> list[dict[str, Any]]:
    with reading(site.engine) as conn:
        rows = conn.execute(select(schema.events.c.detail).where(schema.events.c.kind == kind))
        return [dict(detail) for detail in rows.scalars()]


def test_a_node_in_order_has_no_fault_at_any_stage_of_a_study(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    assert found(site) == []
    site.receive(_again(ds, SOPInstanceUID=ds.SOPInstanceUID, PixelPaddingValue=3))  # a conflict
    site.pass_quiet_time()
    assert found(site) == []
    site.work()
    assert found(site) == []
    answered(site, chest_dataset(seed=5), calling=SELFTEST_AE_TITLE)
    assert found(site) == []
    sizes: list[int] = []
    list(deep.look(site.engine, site.files, later, looked_at=sizes.append))
    with reading(site.engine) as conn:
        assert stocktaking.amount(conn) == stocktaking.Amount(len(sizes), 2, sum(sizes))


def _lose_row(site: Site) -> None:
    with writing(site.engine) as conn:
        conn.execute(delete(schema.instances))


def _cut(site: Site) -> None:
    path = only(site, "instances")
    path.write_bytes(path.read_bytes()[:-7])


def _link(site: Site) -> None:
    path = only(site, "instances")
    away = path.rename(site.files.root.parent / "elsewhere.dcm")
    path.symlink_to(away)


def _foreign(site: Site) -> None:
    for where in ("notes.txt", "instances/x", "instances/ab/notes.txt", "reports/x"):
        path = site.files.root / where
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(mode=0o600)


def _modes(site: Site) -> None:
    only(site, "instances").chmod(0o644)
    only(site, "reports").parent.chmod(0o755)


def _stale(site: Site) -> None:
    path = site.files.incoming / "cut-off.part"
    path.write_bytes(b"half a data set")
    os.utime(path, (0, 0))


def _orphan_report(site: Site) -> None:
    site.files.put_report(b"a report of an attempt that died")


def _no_analysis(site: Site) -> None:
    with writing(site.engine) as conn:
        conn.execute(delete(schema.work_items).where(schema.work_items.c.kind == Kind.ANALYSE))
        conn.execute(delete(schema.reports))
        conn.execute(delete(schema.events))


def _no_report_row(site: Site) -> None:
    with writing(site.engine) as conn:
        conn.execute(delete(schema.reports))
    only(site, "reports").unlink()


def _no_delivery(site: Site) -> None:
    with writing(site.engine) as conn:
        conn.execute(delete(schema.work_items).where(schema.work_items.c.destination == "vna"))


def _no_record(site: Site) -> None:
    with writing(site.engine) as conn:
        conn.execute(delete(schema.deliveries).where(schema.deliveries.c.destination == "vna"))


DAMAGE: dict[str, tuple[Callable[[Site], Any], set[Code]]] = {
    "an image's file is gone": (lambda s: only(s, "instances").unlink(), {Code.MISSING_IMAGE}),
    "one bit of an image": (lambda s: damage(only(s, "instances")), {Code.DAMAGED_IMAGE}),
    "half an image": (_cut, {Code.DAMAGED_IMAGE}),
    "an image's row is gone": (_lose_row, {Code.ORPHAN_IMAGE}),
    "a report's file is gone": (lambda s: only(s, "reports").unlink(), {Code.MISSING_REPORT}),
    "one bit of a report": (lambda s: damage(only(s, "reports")), {Code.DAMAGED_REPORT}),
    "a report without row": (_orphan_report, {Code.ORPHAN_REPORT}),
    "a symbolic link": (_link, {Code.LINK}),
    "foreign files": (_foreign, {Code.FOREIGN}),
    "modes": (_modes, {Code.WRONG_MODE}),
    "a stale file": (_stale, {Code.STALE}),
    "an analysis never asked for": (
        _no_analysis,
        {Code.NO_ANALYSIS, Code.ORPHAN_REPORT, Code.UNRECORDED_DELIVERY},
    ),
    "a report never made": (_no_report_row, {Code.UNANSWERED, Code.UNRECORDED_DELIVERY}),
    "a delivery never asked for": (_no_delivery, {Code.NO_DELIVERY}),
    "a delivery never recorded": (_no_record, {Code.UNRECORDED_DELIVERY}),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_fault_is_found_and_named_and_once_it_is_mended_the_study_has_its_answer(
    site: Site, what: str
) -> None:
    ds = answered(site)
    harm, expected = DAMAGE[what]
    harm(site)
    seen = found(site)
    assert {one.fault.code for one in seen} == expected
    assert all(one.fault.detail and not one.done for one in seen)
    others = answered(site, chest_dataset(seed=9))
    mended(site)
    site.clock.forward(10)
    site.gather()
    site.work()
    assert set(codes(site)) <= expected & NEEDS_A_PERSON
    assert site.verdicts(ds.StudyInstanceUID)[-1:] == [Verdict.BELOW]
    assert site.verdicts(others.StudyInstanceUID) == [Verdict.BELOW]


def test_a_file_that_waits_for_its_row_is_no_orphan(site: Site) -> None:
    answered(site)
    _lose_row(site)
    _orphan_report(site)
    assert found(site, clock=lambda: datetime.now(UTC)) == []


def test_a_file_whose_row_comes_while_it_is_looked_at_is_no_orphan(site: Site) -> None:
    ds = chest_dataset()
    answered(site, ds)
    _lose_row(site)
    opened, came = partial(reading, site.engine), []

    def meanwhile() -> Any:
        if not came and list((site.files.root / "instances").rglob("*.dcm")):
            conn = opened()
            came.append(conn)
            return conn
        if len(came) == 1:
            came.append(site.receive(ds))
        return opened()

    assert list(stocktaking.image_faults(meanwhile, site.files, later(), lambda _size: None)) == []
    assert came[1] is Ingested.NEW


def test_an_orphan_is_entered_as_its_sender_sent_it_and_answered(site: Site) -> None:
    ds = answered(site)
    path = only(site, "instances")
    content = path.read_bytes()
    with writing(site.engine) as conn:
        for table in (schema.work_items, schema.reports, schema.deliveries, schema.instances, schema.revisions):
            conn.execute(delete(table))
    (seen,) = [s for s in mended(site) if s.fault.code is Code.ORPHAN_IMAGE]
    assert (seen.mended, seen.done) == (True, "entered again: new")
    assert only(site, "instances").read_bytes() == content
    assert list(site.files.incoming.iterdir()) == []
    site.clock.forward(10)
    site.gather()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]
    before, after = (dcmread(BytesIO(content)) for name, content in site.peer.kept if name == "pacs")
    assert before.SOPInstanceUID == after.SOPInstanceUID  # one object at the PACS, not two


def test_a_half_written_file_never_becomes_an_instance(site: Site) -> None:
    answered(site)
    _cut(site)
    _lose_row(site)
    (site.files.incoming / "half.part").write_bytes(b"half a data set")
    (seen,) = [s for s in mended(site) if s.fault.code is Code.DAMAGED_ORPHAN]
    assert seen.done.startswith("moved to quarantine/")
    with reading(site.engine) as conn:
        assert conn.execute(select(schema.instances)).all() == []


def test_a_damaged_image_is_set_aside_and_its_study_is_answered_without_it(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    other = _again(ds)
    site.receive(other)
    path = site.files.instance_path(_digest_of(site, ds))
    damage(path)
    harmed = path.read_bytes()
    (seen,) = mended(site)
    assert seen.mended
    assert "Send it again" in seen.done
    assert only(site, "quarantine").read_bytes() == harmed
    assert [e["why"] for e in events_of(site, "instance.lost")] == ["damaged-image"]
    site.pass_quiet_time()
    site.work()
    shown = admin.show_study(site.engine, ds.StudyInstanceUID)["reports"][0]["result"]["images"]
    assert {i["sop_instance_uid"]: (i["refusal"] or {}).get("code") for i in shown} == {
        ds.SOPInstanceUID: "lost",
        other.SOPInstanceUID: None,
    }
    assert found(site) == []


def test_a_study_that_lost_its_only_image_is_answered_failed_and_whole_once_it_is_sent_again(
    site: Site,
) -> None:
    ds = chest_dataset()
    site.receive(ds)
    damage(only(site, "instances"))
    mended(site)
    site.pass_quiet_time()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED]
    assert site.receive(ds, association="again") is Ingested.NEW
    site.associations.ended("again", "released")
    site.clock.forward(10)
    site.gather()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]


def test_a_lost_image_that_comes_again_in_other_bytes_is_scored(site: Site) -> None:
    ds = chest_dataset()
    site.receive(ds)
    damage(only(site, "instances"))
    mended(site)
    site.pass_quiet_time()
    site.work()
    ds.RetrieveAETitle = "PACS"  # an archive seldom gives back the very bytes that it was sent
    assert site.receive(ds, association="again") is Ingested.NEW
    assert site.receive(ds, association="again") is Ingested.DUPLICATE
    site.associations.ended("again", "released")
    site.clock.forward(10)
    site.gather()
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.FAILED, Verdict.BELOW]
    assert found(site) == []
    del ds.RetrieveAETitle
    assert site.receive(ds, association="late") is Ingested.CONFLICT


def test_a_report_that_is_lost_before_it_was_delivered_is_made_again_byte_for_byte(site: Site) -> None:
    def away(_d: Destination) -> int:
        raise DestinationAwayError("pacs is down")

    site.peer.answer = away
    ds = answered(site)
    path = only(site, "reports")
    content = path.read_bytes()
    path.unlink()
    (seen,) = mended(site)
    assert seen.done == "made again, the same bytes"
    assert path.read_bytes() == content
    site.peer.answer = lambda _d: 0
    site.clock.forward(1000)
    site.work()
    assert {i.state for i in site.items(Kind.DELIVER)} == {State.COMPLETED}
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW]


def test_a_report_whose_bytes_cannot_be_made_again_is_superseded_where_it_is_still_waited_for(
    site: Site,
) -> None:
    def answer(destination: Destination) -> int:
        if destination.name == "vna":
            raise DestinationAwayError("vna is down")
        return 0

    site.peer.answer = answer
    ds = answered(site)
    only(site, "reports").unlink()
    with writing(site.engine) as conn:  # as after an upgrade: the same result gives other bytes
        conn.execute(update(schema.revisions).values(closed_at=site.clock() - timedelta(days=1)))
    (seen,) = mended(site)
    assert seen.done == "its bytes cannot be made again; analysed again as revision 2"
    site.peer.answer = lambda _d: 0
    site.clock.forward(1000)
    site.work()
    assert site.verdicts(ds.StudyInstanceUID) == [Verdict.BELOW, Verdict.BELOW]
    assert [i.state for i in site.items(Kind.DELIVER) if i.revision == 2] == [State.COMPLETED] * 2
    assert found(site) == []


def test_a_store_whose_disk_is_not_mounted_is_not_taken_for_lost(site: Site) -> None:
    answered(site)
    shutil.rmtree(site.files.root / "instances")
    (site.files.root / "instances").mkdir(mode=0o700)
    (seen,) = mended(site)
    assert not seen.mended
    assert "is its disk mounted?" in seen.done
    with reading(site.engine) as conn:
        assert list(conn.execute(select(schema.instances.c.kept)).scalars()) == ["yes"]


def test_an_image_that_counts_as_lost_and_is_there_again_is_entered_again(site: Site) -> None:
    first = answered(site)
    path = only(site, "instances")
    answered(site, chest_dataset(seed=3))
    hidden = path.rename(site.files.root.parent / "hidden.dcm")
    mended(site)
    hidden.rename(path)
    (seen,) = mended(site)
    assert (seen.fault.code, seen.done) == (Code.FOUND_IMAGE, "entered again: new")
    site.clock.forward(10)
    site.gather()
    site.work()
    assert site.verdicts(first.StudyInstanceUID) == [Verdict.BELOW, Verdict.BELOW]


def test_a_file_that_came_back_after_its_time_was_over_is_removed(site: Site) -> None:
    answered(site)
    path = only(site, "instances")
    copy = shutil.copy2(path, site.files.root.parent / "copy.dcm")
    with writing(site.engine) as conn:
        (over,) = retention.over(conn, site.clock(), SELFTEST_AE_TITLE)
        retention.let_images_go(conn, over, "test", site.clock())
    assert found(site) == []  # about to be removed is in order
    with writing(site.engine) as conn:
        retention.remove_going(conn, site.files, 10)
    shutil.copy2(copy, path)
    assert codes(site) == [Code.LEFT_OVER]
    mended(site)
    assert not path.exists()
    assert found(site) == []


def test_a_repair_leaves_its_event(site: Site) -> None:
    answered(site)
    _modes(site)
    _stale(site)
    mended(site)
    assert {e["fault"] for e in events_of(site, "store.repaired")} == {"wrong-mode", "stale-file"}


def _digest_of(site: Site, ds: Dataset) -> str:
    with reading(site.engine) as conn:
        query = select(schema.instances.c.digest).where(
            schema.instances.c.sop_instance_uid == ds.SOPInstanceUID
        )
        return str(conn.execute(query).scalar_one())
