"""Display objects on their way: made with a report, kept like one, sent behind it, gone with what they show."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import Engine, select

from dicom_node.config import Store
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.domain.commitment import CommitmentResult, Failure, Reference
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.explanation import Explanation, Picture, Region
from dicom_node.domain.types import Delivery, Destination, ImageResult, Ingested, Kind
from dicom_node.pipeline import deep, retention
from dicom_node.pipeline.repair import Repair
from dicom_node.queue import items
from dicom_node.store import commitments, objects, reports
from dicom_node.store.faults import Code
from tests.fakes import scored
from tests.integration.test_pipeline import Site
from tests.peers_validators import dciodvfy
from tests.phantoms import chest_dataset

KINDS = ("secondary-capture", "presentation-state", "key-objects", "segmentation")
IODS = {
    "1.2.840.10008.5.1.4.1.1.7": "SCImage",
    "1.2.840.10008.5.1.4.1.1.11.1": "GrayscaleSoftcopyPresentationState",
    "1.2.840.10008.5.1.4.1.1.88.59": "KeyObjectSelectionDocument",
    "1.2.840.10008.5.1.4.1.1.66.4": "Segmentation",
}
ROWS, COLUMNS = 96, 80
MASK = np.zeros((ROWS, COLUMNS), dtype=bool)
MASK[20:60, 10:50] = True


def explanation(result: ImageResult) -> Explanation:
    return Explanation(
        sop_instance_uid=result.sop_instance_uid,
        rows=ROWS,
        columns=COLUMNS,
        method="by hand",
        false_positive_rate=0.05,
        region=Region(((10.0, 20.0), (50.0, 20.0), (50.0, 60.0), (10.0, 60.0)), float(MASK.mean())),
        mask=np.packbits(MASK, bitorder="little").tobytes(),
        value_range=(0.0, 4095.0),
        picture=Picture(60, 120, bytes(60 * 120 * 3)),
    )


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    made = Site(engine, tmp_path / "store", KINDS)
    made.judge = partial(scored, percentile=99.0, above=True)
    made.explain = explanation
    return made


def answered(site: Site, ds: Dataset | None = None) -> Dataset:
    ds = ds or chest_dataset(shape=(ROWS, COLUMNS))
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    return ds


def sent(site: Site, destination: str) -> list[Dataset]:
    return [dcmread(BytesIO(content)) for name, content in site.peer.kept if name == destination]


def later(site: Site) -> list[deep.Seen]:
    return list(deep.look(site.engine, site.files, lambda: site.clock() + timedelta(days=365)))


def test_what_a_destination_wants_follows_the_report_and_another_gets_the_report_alone(site: Site) -> None:
    answered(site)
    assert {str(ds.SOPClassUID) for ds in sent(site, "pacs")[1:]} == set(IODS)
    assert [str(ds.Modality) for ds in sent(site, "pacs") + sent(site, "vna")].count("SR") == 2
    assert len(sent(site, "vna")) == 1


@pytest.mark.peer("dciodvfy")
def test_every_object_is_valid_and_of_the_study(site: Site, tmp_path: Path) -> None:
    image = answered(site)
    report, *beside = [content for name, content in site.peer.kept if name == "pacs"]
    for content in beside:
        ds = dcmread(BytesIO(content))
        assert dciodvfy(content, tmp_path, IODS[ds.SOPClassUID]) == []
        assert (ds.StudyInstanceUID, ds.PatientID) == (image.StudyInstanceUID, image.PatientID)
    assert dciodvfy(report, tmp_path) == []


def test_the_region_is_part_of_the_report_and_of_the_result(site: Site) -> None:
    image = answered(site)
    with reading(site.engine) as conn:
        stored = reports.get(conn, image.StudyInstanceUID, 1)
    assert stored is not None
    assert stored.result["images"][0]["region"]["area"] == float(MASK.mean())
    assert "SCOORD" in str(sent(site, "vna")[0])


def test_the_outline_leaves_the_image_as_its_own_header_has_it_shown(site: Site) -> None:
    image = chest_dataset(shape=(ROWS, COLUMNS), photometric="MONOCHROME1")
    image.WindowCenter, image.WindowWidth, image.VOILUTFunction = 1200, 2400, "SIGMOID"
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 100, 2, "US"
    answered(site, image)
    outline = next(ds for ds in sent(site, "pacs") if ds.Modality == "PR")
    window = outline.SoftcopyVOILUTSequence[0]
    assert outline.PresentationLUTShape == "INVERSE"
    assert (window.WindowCenter, window.WindowWidth, window.VOILUTFunction) == (1200, 2400, "SIGMOID")
    assert (outline.RescaleIntercept, outline.RescaleSlope) == (100, 2)


def test_without_an_explanation_only_the_key_objects_are_there(site: Site) -> None:
    site.explain = lambda _result: None
    answered(site)
    assert [str(ds.Modality) for ds in sent(site, "pacs")] == ["SR", "KO"]


def test_below_threshold_there_is_nothing_to_select(site: Site) -> None:
    site.judge, site.explain = scored, lambda _result: None
    answered(site)
    assert [str(ds.Modality) for ds in sent(site, "pacs")] == ["SR"]


def test_an_analysis_that_is_made_again_makes_the_same_objects(site: Site) -> None:
    image = answered(site)
    before = {one.name for one in site.files.root.rglob("reports/*/*.dcm")}
    with reading(site.engine) as conn:
        item = next(i for i in items.of_study(conn, image.StudyInstanceUID) if i.kind is Kind.ANALYSE)
    site.analyse(item)
    assert {one.name for one in site.files.root.rglob("reports/*/*.dcm")} == before


def test_an_object_that_comes_back_is_known_and_not_processed(site: Site) -> None:
    answered(site)
    capture = next(ds for ds in sent(site, "pacs") if ds.Modality == "OT")
    assert site.receive(capture) is Ingested.OWN
    with reading(site.engine) as conn:
        assert reports.is_own(conn, capture.SOPInstanceUID)


def test_the_deep_check_knows_the_objects_and_counts_a_damaged_one_as_lost(site: Site) -> None:
    image = answered(site)
    assert later(site) == []
    with reading(site.engine) as conn:
        stored = reports.get(conn, image.StudyInstanceUID, 1)
        assert stored is not None
        first, second, *rest = objects.of_report(conn, stored.sop_instance_uid, KINDS)
    with site.files.report_path(first.digest).open("r+b") as file:
        file.write(b"damage")
    site.files.report_path(second.digest).unlink()
    seen = {one.fault.code: one.fault for one in later(site)}
    assert set(seen) == {Code.DAMAGED_OBJECT, Code.MISSING_OBJECT}
    repair = Repair(site.engine, site.files, site.ingest, lambda _study, _revision: b"", site.clock)
    for fault in seen.values():
        repair(fault)
    assert later(site) == []
    with reading(site.engine) as conn:
        assert objects.of_report(conn, stored.sop_instance_uid, KINDS) == tuple(rest)


def test_a_damaged_object_does_not_hold_up_the_report(site: Site) -> None:
    def away(destination: Destination) -> int:
        for path in site.files.root.rglob("reports/*/*.dcm"):
            if dcmread(path).Modality == "OT":
                path.write_bytes(b"damage")
        site.peer.answer = lambda _destination: 0
        raise DestinationAwayError(f"{destination.name} is away")

    site.peer.answer = away
    answered(site)
    site.clock.forward(60)
    site.work()
    assert {str(ds.Modality) for ds in sent(site, "pacs")} == {"SR", "PR", "KO", "SEG"}


def test_objects_are_removed_with_the_images_that_they_show(site: Site) -> None:
    answered(site)
    site.clock.forward(40 * 86_400)
    keep = Store.model_validate({"root": site.files.root, "retention_days": 30})
    assert len(retention.prune(site.engine, site.files, keep, site.clock).studies) == 1
    left = [str(dcmread(path).Modality) for path in site.files.root.rglob("reports/*/*.dcm")]
    assert left == ["SR"]
    assert later(site) == []


def test_an_object_that_is_not_committed_leaves_the_reports_commitment_as_it_is(site: Site) -> None:
    image = answered(site)
    with writing(site.engine) as conn:
        stored = reports.get(conn, image.StudyInstanceUID, 1)
        assert stored is not None
        first, *rest = objects.delivered(conn, stored.sop_instance_uid, "pacs")
        commitments.ask(conn, "2.25.7", stored.sop_instance_uid, "pacs", site.clock())
        failed = Failure(Reference(first.sop_class_uid, first.sop_instance_uid), 0x0112)
        said = commitments.answer(conn, CommitmentResult("2.25.7", (), (failed,)), site.clock())
        assert said is not None
        assert said.failure_reason is None
        assert objects.delivered(conn, stored.sop_instance_uid, "pacs") == tuple(rest)


def test_what_was_declined_is_not_counted_as_delivered(site: Site) -> None:
    def declining(destination: Destination, content: bytes, also: object = ()) -> Delivery:
        return replace(
            site.peer.send(destination, content), comment="without Segmentation Storage not accepted"
        )

    site.dispatch._send = declining
    image = answered(site)
    with reading(site.engine) as conn:
        stored = reports.get(conn, image.StudyInstanceUID, 1)
        assert stored is not None
        assert objects.delivered(conn, stored.sop_instance_uid, "pacs") == ()
        told = conn.scalars(select(schema.deliveries.c.comment)).all()
    assert "without Segmentation Storage not accepted" in told
