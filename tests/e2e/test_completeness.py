"""When a study counts as complete in a node that `serve` runs: what a modality and an archive say, else the quiet time.

The archive is Orthanc, and DCMTK sends the images. Neither DCMTK nor PixelMed sends MPPS or availability notices: these
come from pynetdicom, written from PS3.4 annexes F and R, and from dcmjs-dimse where Node.js finds it (NODE_PATH).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import Engine

from dicom_node.config import Db
from dicom_node.db.engine import open_engine
from dicom_node.domain.types import Destination
from dicom_node.pipeline import admin
from tests.archives import fill, pacs
from tests.live import LiveNode, running, until
from tests.peers import CR, Orthanc, dcmtk, free_port, write_image

pytestmark = pytest.mark.slow
MPPS, IAN = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.33"
QUIET = 6.0
DCMJS = Path(__file__).parents[1] / "dcmjs_notice.js"
NUMBERS = count()


@dataclass
class House:
    """A node without workers, its archive, and a modality."""

    node: LiveNode
    archive: Orthanc
    engine: Engine
    folder: Path

    def study(self, images: int = 2) -> tuple[str, list[Path]]:
        """Write a study of small CR images."""
        study = generate_uid()
        paths = [self.folder / f"{next(NUMBERS)}.dcm" for _ in range(images)]
        for number, path in enumerate(paths):
            write_image(
                path,
                study_instance_uid=study,
                sop_instance_uid=f"{study[:50]}.{number}",
                AccessionNumber="A1",
                BodyPartExamined="CHEST",
            )
        return study, paths

    def send(self, *paths: Path, calling: str = "CR1") -> None:
        command = [dcmtk("storescu"), "-aet", calling, "-aec", "DICOMNODE", "127.0.0.1", str(self.node.port)]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr

    def tell(self, service: str, uid: str, ds: Dataset, *, more: bool = False, by: str = "pynetdicom") -> int:
        """Send an N-CREATE, or an N-SET of what was created before; return the status."""
        if by == "dcmjs":
            asked = {"sop_class": service, "uid": uid, "update": more, "port": self.node.port}
            told = json.dumps({**asked, "elements": _values(ds)})
            command = ["node", str(DCMJS)]
            done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=60, check=True)
            return int(done.stdout)
        entity = ApplicationEntity("CR1")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(service)
        association = entity.associate("127.0.0.1", self.node.port, ae_title="DICOMNODE")
        assert association.is_established
        send = association.send_n_set if more else association.send_n_create
        status, _ = send(ds, service, uid)
        association.release()
        return int(status.Status)

    def revision(self, study: str) -> dict[str, Any]:
        shown = admin.show_study(self.engine, study)
        (revision,) = shown["revisions"]
        return {**revision, "images": len(shown["instances"]), "work": shown["work_items"]}

    def closed_after(self, study: str, most: float = 60.0) -> float:
        """Return how long after its last image a study was closed; wait for that."""
        until(lambda: self.revision(study)["closed_at"] is not None, f"study {study} is closed", most)
        revision = self.revision(study)
        moments = [datetime.fromisoformat(revision[key]) for key in ("last_received_at", "closed_at")]
        return (moments[1] - moments[0]).total_seconds()

    def is_open_beyond_the_quiet_time(self, study: str) -> bool:
        time.sleep(QUIET + 2)
        return self.revision(study)["closed_at"] is None


def _values(ds: Dataset) -> dict[str, Any]:
    """Return a data set by keywords."""
    return {
        element.keyword: [_values(item) for item in element.value] if element.VR == "SQ" else str(element.value)
        for element in ds
    }


@pytest.fixture(params=["pynetdicom", "dcmjs"])
def by(request: pytest.FixtureRequest) -> str:
    """Return by which implementation notices are sent."""
    if request.param == "dcmjs":
        command = [shutil.which("node") or "false", "-e", "require('dcmjs-dimse')"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no Node.js that finds dcmjs-dimse: npm install dcmjs-dimse, and NODE_PATH")
    return str(request.param)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("completeness")
    with pacs(folder / "pacs", free_port()) as archive:
        node = LiveNode(
            folder,
            folder / "banks",
            Destination("pacs", archive.ae_title, archive.host, archive.port),
            receive={"mpps": True, "availability": True},
            gather={
                "quiet_seconds": QUIET,
                "hold_seconds": 120.0,
                "count_archive": "pacs",
                "count_seconds": 1.0,
            },
            work={"workers": 0},
        )
        node.add("archives", name="pacs", ae_title=archive.ae_title, host=archive.host, port=archive.port)
        node.add("priorities", priority="STAT", calling_ae_titles=["EMERGENCY"], body_parts=["CHEST"])
        with running(node):
            engine = open_engine(Db(url=f"sqlite:///{folder / 'node.db'}"))
            yield House(node, archive, engine, folder)
            engine.dispose()


def _images(paths: list[Path], keyword: str) -> list[Dataset]:
    series = Dataset()
    series.SeriesInstanceUID = generate_uid()
    items = []
    for path in paths:
        one = Dataset()
        one.ReferencedSOPClassUID = CR
        one.ReferencedSOPInstanceUID = dcmread(path, stop_before_pixels=True).SOPInstanceUID
        one.InstanceAvailability, one.RetrieveAETitle = "ONLINE", "ORTHANC"
        items.append(one)
    setattr(series, keyword, items)
    return [series]


def _begun(study: str) -> Dataset:
    """Return an N-CREATE (PS3.4 table F.7.2-1) as a modality sends it."""
    step = Dataset()
    step.StudyInstanceUID, step.AccessionNumber, step.ReferencedStudySequence = study, "A1", []
    ds = Dataset()
    ds.PatientName, ds.PatientID, ds.Modality = "Hidden^Person", "SECRET", "CR"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle = "1", "CR1"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20260102", "030405"
    ds.PerformedProcedureStepStatus = "IN PROGRESS"
    ds.ScheduledStepAttributesSequence, ds.PerformedSeriesSequence = [step], []
    return ds


def _ended(state: str, paths: list[Path]) -> Dataset:
    ds = Dataset()
    ds.PerformedProcedureStepStatus = state
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20260102", "030506"
    ds.PerformedSeriesSequence = _images(paths, "ReferencedImageSequence") if paths else []
    return ds


def test_a_study_of_which_nobody_says_anything_is_closed_by_the_quiet_time(house: House) -> None:
    study, paths = house.study()
    house.send(*paths)
    assert QUIET <= house.closed_after(study) < QUIET + 20
    (item,) = house.revision(study)["work"]
    assert item["priority"] == 5  # routine: no rule takes it


def test_the_archive_has_more_and_the_study_is_held_open_until_that_is_here(house: House) -> None:
    study, paths = house.study()
    fill(house.archive, paths)
    house.send(paths[0], calling="EMERGENCY")
    assert house.is_open_beyond_the_quiet_time(study)
    house.send(paths[1], calling="EMERGENCY")
    assert house.closed_after(study) < QUIET
    revision = house.revision(study)
    assert revision["images"] == 2
    (item,) = revision["work"]
    assert (item["kind"], item["priority"]) == ("analyse", 1)


def test_a_study_is_closed_early_once_all_that_the_archive_has_is_here(house: House) -> None:
    study, paths = house.study()
    fill(house.archive, paths)
    house.send(*paths)
    assert house.closed_after(study) < QUIET


def test_while_a_modality_makes_images_the_study_is_held_open_and_closed_early_when_it_has_ended(
    house: House, by: str
) -> None:
    study, paths = house.study()
    step = generate_uid()
    assert house.tell(MPPS, step, _begun(study), by=by) == 0
    house.send(*paths)
    assert house.is_open_beyond_the_quiet_time(study)
    assert house.tell(MPPS, step, _ended("COMPLETED", paths), more=True, by=by) == 0
    until(lambda: house.revision(study)["closed_at"] is not None, "it is closed at the step's end", 30)
    assert (
        house.tell(MPPS, step, _ended("COMPLETED", paths), more=True, by=by) == 0x0110
    )  # it may no longer be updated


def test_a_step_that_ended_and_names_an_image_that_is_not_here_holds_the_study_until_it_comes(
    house: House,
) -> None:
    study, paths = house.study()
    step = generate_uid()
    house.tell(MPPS, step, _begun(study))
    house.send(paths[0])
    assert house.tell(MPPS, step, _ended("COMPLETED", paths), more=True) == 0
    assert house.is_open_beyond_the_quiet_time(study)
    house.send(paths[1])
    assert house.closed_after(study) < QUIET


def test_a_discontinued_step_that_names_its_images_closes_the_study_early(house: House) -> None:
    study, paths = house.study(1)
    step = generate_uid()
    house.tell(MPPS, step, _begun(study))
    house.send(*paths)
    assert house.tell(MPPS, step, _ended("DISCONTINUED", paths), more=True) == 0
    assert house.closed_after(study) < QUIET


def test_a_discontinued_step_without_images_leaves_it_to_the_quiet_time(house: House) -> None:
    study, paths = house.study(1)
    step = generate_uid()
    house.tell(MPPS, step, _begun(study))
    house.send(*paths)
    assert house.tell(MPPS, step, _ended("DISCONTINUED", []), more=True) == 0
    assert QUIET <= house.closed_after(study) < QUIET + 20


def test_an_availability_notice_holds_a_study_until_all_named_images_are_here_and_closes_it_then(
    house: House, by: str
) -> None:
    study, paths = house.study()
    notice = Dataset()
    notice.StudyInstanceUID = study
    notice.ReferencedPerformedProcedureStepSequence = []
    notice.ReferencedSeriesSequence = _images(paths, "ReferencedSOPSequence")
    assert house.tell(IAN, generate_uid(), notice, by=by) == 0
    house.send(paths[0])
    assert house.is_open_beyond_the_quiet_time(study)
    house.send(paths[1])
    assert house.closed_after(study) < QUIET


def test_nothing_of_a_patient_who_was_told_of_is_in_the_log_or_the_database(house: House) -> None:
    study, _ = house.study(0)
    house.tell(MPPS, generate_uid(), _begun(study))
    house.tell(MPPS, generate_uid(), _ended("COMPLETED", []), more=True)
    assert b"notice taken" in house.node.log.read_bytes()
    assert b"notice refused" in house.node.log.read_bytes()
    for path in (house.node.log, *house.folder.glob("node.db*")):
        assert not [word for word in (b"Hidden", b"SECRET") if word in path.read_bytes()], path
