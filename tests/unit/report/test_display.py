from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.domain.explanation import Explanation, Picture, Region
from dicom_node.domain.types import Report, Verdict
from dicom_node.report import capture, key_objects, presentation, segmentation, sr
from dicom_node.report.display import NOTICE, Source
from tests.peers import require
from tests.peers_validators import dciodvfy
from tests.phantoms import chest_dataset, part10
from tests.unit.report.builders import AT, CR, EQUIPMENT, NAMES, SERIES, header, image, raw, result
from tests.unit.report.test_header import variants

IODS = {
    "capture": "SCImage",
    "presentation": "GrayscaleSoftcopyPresentationState",
    "key objects": "KeyObjectSelectionDocument",
    "segmentation": "Segmentation",
}
OUTLINE = ((300.0, 500.0), (800.0, 500.0), (800.0, 900.0), (300.0, 900.0))
MASK = np.zeros((2500, 2048), dtype=bool)
MASK[500:900, 300:800] = True


def explanation(rows: int = 2500, columns: int = 2048) -> Explanation:
    return Explanation(
        sop_instance_uid=image().sop_instance_uid,
        rows=rows,
        columns=columns,
        method="distance of places to patches of normal chests",
        false_positive_rate=0.05,
        region=Region(OUTLINE, 0.04),
        mask=np.packbits(MASK[:rows, :columns], bitorder="little").tobytes(),
        value_range=(0.0, 4095.0),
        picture=Picture(3, 5, bytes(range(45))),
    )


def source_of(ds: Dataset) -> Source:
    return Source(ds, SERIES, CR, image().sop_instance_uid)


def every_object(ds: Dataset) -> dict[str, Report]:
    report = sr.build(result(Verdict.ABOVE), [ds], EQUIPMENT, AT)
    source, where = source_of(ds), explanation()
    made = {
        "capture": capture.build(report, source, where, EQUIPMENT, AT),
        "presentation": presentation.build(report, source, where, EQUIPMENT, AT),
        "key objects": key_objects.build(report, [source], EQUIPMENT, AT),
        "segmentation": segmentation.build(report, source, where, EQUIPMENT, AT),
    }
    return {kind: one for kind, one in made.items() if one is not None}


def headers() -> Iterator[tuple[str, Dataset]]:
    yield "usual", header()
    yield "nothing", Dataset()
    yield from variants().items()


@pytest.mark.peer("dciodvfy")
@pytest.mark.parametrize(("what", "ds"), headers(), ids=[what for what, _ in headers()])
def test_dciodvfy_finds_no_error_whatever_the_header_was(what: str, ds: Dataset, tmp_path: Path) -> None:
    found = {
        kind: errors
        for kind, one in every_object(ds).items()
        if (errors := dciodvfy(one.content, tmp_path, IODS[kind]))
    }
    assert found == {}, what


@pytest.mark.parametrize(
    "what", ["latin-1", "utf-8 japanese", "iso 2022 japanese", "cyrillic", "iso 2022 korean"]
)
def test_every_object_is_filed_under_the_name_of_the_image_byte_for_byte(what: str) -> None:
    charset, name = NAMES[what]
    objects = every_object(header({"SpecificCharacterSet": charset, "PatientName": name}))
    assert {kind: raw(dcmread(BytesIO(one.content)), "PatientName") for kind, one in objects.items()} == (
        dict.fromkeys(IODS, name)
    )


def test_objects_are_a_function_of_report_and_image() -> None:
    first, again = every_object(header()), every_object(header())
    assert {kind: one.content for kind, one in first.items()} == {
        kind: one.content for kind, one in again.items()
    }
    uids = [one.sop_instance_uid for one in first.values()]
    assert len({*uids, *(one.series_instance_uid for one in first.values())}) == 2 * len(IODS)
    later = sr.build(result(Verdict.ABOVE, revision=2), [header()], EQUIPMENT, AT)
    other = capture.build(later, source_of(header()), explanation(), EQUIPMENT, AT)
    assert other.sop_instance_uid not in uids


def test_every_object_is_of_the_study_and_carries_the_nodes_own_uid_that_stops_loops() -> None:
    for one in every_object(header()).values():
        ds = dcmread(BytesIO(one.content))
        assert (ds.StudyInstanceUID, ds.DeviceUID) == (header().StudyInstanceUID, EQUIPMENT.device_uid)


def test_the_capture_is_no_radiograph_and_says_what_it_is_not_for() -> None:
    ds = dcmread(BytesIO(every_object(header())["capture"].content))
    assert (ds.Modality, ds.BurnedInAnnotation, ds.ImageComments) == ("OT", "YES", NOTICE)
    assert ds.SourceImageSequence[0].ReferencedSOPInstanceUID == image().sop_instance_uid
    assert ds.pixel_array.tobytes() == bytes(range(45))


def test_the_segment_is_the_mask_on_the_grid_of_its_image() -> None:
    ds = dcmread(BytesIO(every_object(header())["segmentation"].content))
    assert np.array_equal(ds.pixel_array.astype(bool), MASK)
    origin = ds.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert origin.ReferencedSOPInstanceUID == image().sop_instance_uid


def test_key_objects_select_the_images_above_threshold() -> None:
    ds = dcmread(BytesIO(every_object(header())["key objects"].content))
    selected = [
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in ds.ContentSequence
        if item.ValueType == "IMAGE"
    ]
    assert selected == [image().sop_instance_uid]
    evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image().sop_instance_uid


def test_without_a_region_there_is_nothing_to_outline_and_nothing_to_select() -> None:
    report = sr.build(result(Verdict.BELOW), [header()], EQUIPMENT, AT)
    nowhere = replace(explanation(), region=None)
    assert presentation.build(report, source_of(header()), nowhere, EQUIPMENT, AT) is None
    assert segmentation.build(report, source_of(header()), nowhere, EQUIPMENT, AT) is None
    assert key_objects.build(report, [], EQUIPMENT, AT) is None


@pytest.mark.peer("dcmp2pgm")
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [True, False])
def test_dcmtk_shows_the_image_under_the_outline_as_it_is_without(
    photometric: str, window: bool, tmp_path: Path
) -> None:
    changes = {} if window else {"WindowCenter": None, "WindowWidth": None, "VOILUTFunction": None}
    ds = chest_dataset(photometric=photometric, **changes)  # type: ignore[arg-type]
    (tmp_path / "image.dcm").write_bytes(part10(ds))
    read = dcmread(tmp_path / "image.dcm")
    values = read.pixel_array
    where = replace(
        explanation(int(read.Rows), int(read.Columns)),
        sop_instance_uid=str(read.SOPInstanceUID),
        region=Region(((20.0, 30.0), (60.0, 30.0), (60.0, 80.0), (20.0, 80.0)), 0.1),
        value_range=(float(values.min()), float(values.max())),
    )
    one = replace(
        result(Verdict.ABOVE).images[0],
        sop_class_uid=str(read.SOPClassUID),
        sop_instance_uid=str(read.SOPInstanceUID),
        series_instance_uid=str(read.SeriesInstanceUID),
    )
    study = replace(result(Verdict.ABOVE, [one]), study_instance_uid=str(read.StudyInstanceUID))
    report = sr.build(study, [read], EQUIPMENT, AT)
    source = Source(read, one.series_instance_uid, one.sop_class_uid, one.sop_instance_uid)
    state = presentation.build(report, source, where, EQUIPMENT, AT)
    assert state is not None
    (tmp_path / "state.dcm").write_bytes(state.content)
    command = [require("dcmp2pgm"), "-p", "state.dcm", "image.dcm", "shown.pgm"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    shown = np.asarray(Image.open(tmp_path / "shown.pgm").convert("L")).astype(float)
    stored = values.astype(float) * (-1 if photometric == "MONOCHROME1" else 1)
    assert shown.shape == stored.shape
    assert np.corrcoef(shown.ravel(), stored.ravel())[0, 1] > 0.9
    assert shown.max() - shown.min() > 150
