"""The desk over many studies: order, filters and search agree with what a line shows."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, create_engine, delete, select, update

from dicom_node.db import events, schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.reading import Filters, Order, Progress, WindowView
from dicom_node.pipeline.desk_banks import Banks
from dicom_node.pipeline.desk_patients import Patients
from dicom_node.pipeline.headers import read_header
from dicom_node.store.files import FileStore
from tests import synthetic
from tests.desks import Desk
from tests.phantoms import chest_dataset, part10

STUDIES = 60
ALL = Filters()


@pytest.fixture
def desk(engine: Engine, tmp_path: Path) -> Iterator[Desk]:
    files = FileStore(tmp_path / "store", 0)
    synthetic.fill(engine, STUDIES, files=files)
    made = Desk(engine, files, lambda: synthetic.NOW)
    yield made
    made.desk.close()


def test_a_filter_shows_exactly_the_studies_whose_line_says_so(desk: Desk) -> None:
    """The statement that selects and the code that makes a line say the same of progress, delivery and mark."""
    every = desk.desk.studies(ALL, 0, 200).rows
    assert len(every) == STUDIES

    def shown(filters: Filters) -> set[str]:
        return {row.study_instance_uid for row in desk.desk.studies(filters, 0, 200).rows}

    for far in Progress:
        expected = {row.study_instance_uid for row in every if row.progress is far}
        assert shown(Filters(progress=frozenset([far]))) == expected, far
        assert expected, far
    states = {(one.destination, one.state) for row in every for one in row.deliveries}
    assert len(states) == 3
    for destination, state in states:
        expected = {
            row.study_instance_uid
            for row in every
            if (destination, state) in {(one.destination, one.state) for one in row.deliveries}
        }
        assert shown(Filters(destination=destination, delivery=state)) == expected
    for mark in ("normal", "abnormal", ""):
        assert shown(Filters(marks=frozenset([mark]))) == {
            r.study_instance_uid for r in every if r.mark == mark
        }
    assert shown(Filters(minimum_percentile=50.0)) == {
        row.study_instance_uid for row in every if row.percentile is not None and row.percentile >= 50
    }


def test_the_most_unusual_stand_first_and_those_without_a_score_last(desk: Desk) -> None:
    found = [row.percentile for row in desk.desk.studies(Filters(order=Order.UNUSUAL), 0, 200).rows]
    scored = [one for one in found if one is not None]
    assert scored == sorted(scored, reverse=True)
    assert found[: len(scored)] == scored
    assert len(scored) < len(found)


def test_pages_follow_each_other_without_a_gap(desk: Desk) -> None:
    pages = [desk.desk.studies(ALL, offset, 25) for offset in (0, 25, 50, 75)]
    assert [len(page.rows) for page in pages] == [25, 25, 10, 0]
    assert {page.total for page in pages} == {STUDIES}
    moments = [row.received_at for page in pages for row in page.rows]
    assert all(one > other for one, other in pairwise(moments))


def test_once_warmed_up_the_first_pages_are_shown_without_reading_a_header(desk: Desk) -> None:
    desk.desk.warm_up(10)
    for path in (desk.files.root / "instances").rglob("*.dcm"):
        path.unlink()
    for order in Order:
        names = [row.patient.name for row in desk.desk.studies(Filters(order=order), 0, 10).rows]
        assert len(names) == 10, order
        assert all(names), order


def test_a_search_finds_a_name_in_any_spelling_and_says_while_it_has_not_looked_at_all(desk: Desk) -> None:
    first = desk.desk.studies(Filters(search="MULLER"), 0, 200)
    assert first.note == "" or "were looked at so far" in first.note
    assert desk.patients.filled(30)
    for term in ("MULLER", "jürgen müller", "Muller, J"):
        found = desk.desk.studies(Filters(search=term), 0, 200)
        assert (found.total, found.note) == (STUDIES // 5, ""), term
        assert {row.patient.name for row in found.rows} == {"Müller, Jürgen"}
    assert desk.desk.studies(Filters(search="P00007"), 0, 200).rows[
        0
    ].study_instance_uid == synthetic.study_uid(7)
    assert desk.desk.studies(Filters(search="00007"), 0, 200).total == 0


def test_a_search_follows_what_comes_and_what_goes(engine: Engine, desk: Desk) -> None:
    desk.patients.catch_up()
    assert desk.patients.filled(30)
    synthetic.fill(engine, 1, files=desk.files, first=500)
    assert desk.patients.search("P00500").studies == (synthetic.study_uid(500),)
    with writing(engine) as conn:
        conn.execute(
            update(schema.instances)
            .where(schema.instances.c.study_instance_uid == synthetic.study_uid(500))
            .values(kept="gone")
        )
        events.record(conn, synthetic.NOW, "study.pruned", study_instance_uid=synthetic.study_uid(500))
    assert desk.patients.search("P00500").studies == ()
    (row,) = (
        r for r in desk.desk.studies(ALL, 0, 200).rows if r.study_instance_uid == synthetic.study_uid(500)
    )
    assert row.patient.name == ""


def test_a_search_finds_what_was_written_earlier_and_committed_later(engine: Engine, desk: Desk) -> None:
    """PostgreSQL numbers an event when it is written: one may be seen behind others with higher numbers."""
    with writing(engine) as conn:
        events.record(conn, synthetic.NOW, "placeholder")
        number = events.last(conn)
    synthetic.fill(engine, 1, files=desk.files, first=501)
    desk.patients.catch_up()
    assert desk.patients.filled(30)
    assert desk.patients.search("P00501").studies == (synthetic.study_uid(501),)
    synthetic.fill(engine, 1, files=desk.files, first=500)
    table = schema.events
    with writing(engine) as conn:
        conn.execute(delete(table).where(table.c.id == number))
        late = update(table).where(table.c.study_instance_uid == synthetic.study_uid(500))
        assert conn.execute(late.values(id=number)).rowcount == 1
    assert desk.patients.search("P00500").studies == (synthetic.study_uid(500),)


def test_a_destination_that_no_database_can_name_has_nothing(desk: Desk) -> None:
    assert desk.desk.studies(Filters(destination="pacs\0"), 0, 10).total == 0


def test_a_study_is_named_by_an_image_that_is_held(engine: Engine, desk: Desk) -> None:
    """Of the study's two images the first by its UID is lost."""
    study, table = synthetic.study_uid(2), schema.instances
    with writing(engine) as conn:
        conn.execute(delete(schema.reports).where(schema.reports.c.study_instance_uid == study))
        held = dict(conn.execute(select(table).where(table.c.study_instance_uid == study)).one()._mapping)
        lost = {"id": 1_000_000, "sop_instance_uid": "2.25.1", "digest": "0" * 64, "kept": "lost"}
        conn.execute(table.insert().values({**held, **lost}))
    row = next(r for r in desk.desk.studies(ALL, 0, 200).rows if r.study_instance_uid == study)
    assert (row.patient.name != "", row.decisive_image) == (True, held["sop_instance_uid"])


def test_a_header_that_cannot_be_read_shows_nobody(engine: Engine, desk: Desk) -> None:
    path = next(iter((desk.files.root / "instances").rglob("*.dcm")))
    path.write_bytes(b"no image")
    assert Patients(engine, desk.files).of(path.stem).name == ""


def test_a_header_that_cannot_be_read_now_is_read_another_time(engine: Engine, desk: Desk) -> None:
    broken = [True]

    def read(path: Path) -> Dataset:
        if broken[0]:
            raise OSError(errno.EMFILE, "Too many open files")
        return read_header(path)

    patients = Patients(engine, desk.files, read)
    digest = next(iter((desk.files.root / "instances").rglob("*.dcm"))).stem
    assert patients.of(digest).name == ""
    patients.catch_up()
    assert not patients.filled(30)
    assert not patients.search("P00007").complete
    broken[0] = False
    assert patients.of(digest).name != ""
    patients.catch_up()
    assert patients.filled(30)
    assert patients.search("P00007").studies == (synthetic.study_uid(7),)
    patients.close()


def test_every_window_that_an_image_asks_for_and_that_can_be_used_is_offered(desk: Desk) -> None:
    def windows(**header: object) -> tuple[WindowView, ...]:
        path = next(iter((desk.files.root / "instances").rglob("*.dcm")))
        path.write_bytes(part10(chest_dataset(**header)))  # type: ignore[arg-type]
        with reading(desk.engine) as conn:
            study = conn.execute(
                select(schema.instances.c.study_instance_uid).where(schema.instances.c.digest == path.stem)
            ).scalar_one()
        return desk.desk.study(study).images[0].windows

    assert windows(
        WindowCenter=["2047.5", "600", "9", "1e30"],
        WindowWidth=["4096", "1500", "0", "5"],
        WindowCenterWidthExplanation=["NORMAL", "LUNG\u202e"],
        VOILUTFunction="LINEAR",
    ) == (WindowView(2047.5, 4096.0, "LINEAR", "NORMAL"), WindowView(600.0, 1500.0, "LINEAR", "LUNG"))
    assert windows(WindowCenter="600", WindowWidth="0.5", VOILUTFunction="SIGMOID") == (
        WindowView(600.0, 0.5, "SIGMOID", "all"),
    )
    assert windows(WindowCenter=["5"] * 40, WindowWidth=["50"] * 40)[8:] == ()
    assert windows(WindowCenter=None, WindowWidth=None) == ()


@pytest.mark.parametrize("value", ["five", [5], float("inf"), None])
def test_a_bank_whose_manifest_was_changed_is_shown_as_one_that_cannot_be_used(
    tmp_path: Path, value: object
) -> None:
    (tmp_path / "site").mkdir()
    manifest = {"bank_hash": "0", "files": {}, "normal_images": 3, "calibration_images": 3, "threshold": 0.5}
    (tmp_path / "site" / "manifest.json").write_text(json.dumps({**manifest, "name": "site", "k": value}))
    (bank,) = Banks(tmp_path, create_engine("sqlite://"), lambda: synthetic.NOW).banks()
    assert "it was changed" in bank.fault
    assert (bank.normal_images, bank.k) == (3, 0)


def test_the_node_tells_of_what_failed_and_where_it_is_stuck(desk: Desk) -> None:
    health = desk.desk.health()
    assert {row["what"] for row in health.errors} == {"workitem.failed"}
    vna = next(peer for peer in health.peers if peer.name == "vna")
    assert (vna.state, vna.detail) == ("failed", f"{STUDIES // 10} failed")
    assert (vna.error, vna.error_at is not None) == ("refused: 0xA900", True)
