"""A RIS's worklist (DCMTK's wlmscpfs) and a node that `serve` runs: what is due, what came, what never came."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from dicom_node.domain.urgency import HIGH, STAT
from tests.live import LiveNode, running, until
from tests.phantoms import chest_dataset, part10
from tests.ris import Ris, ris

pytestmark = pytest.mark.slow


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Ris]:
    with ris(tmp_path / "worklists") as server:
        yield server


@pytest.fixture
def node(tmp_path: Path, desk: Ris) -> Iterator[LiveNode]:
    sink = StorageSink(tmp_path / "pacs", "PACS")
    host, port = sink.start()
    node = LiveNode(tmp_path, tmp_path / "banks", Destination("pacs", "PACS", host, port), work={"workers": 1})
    node.add(
        "modality_worklists", name="ris", ae_title="RIS", host="127.0.0.1", port=desk.port, poll_seconds=1.0
    )
    node.add("priorities", priority="LOW", modalities=["DX"])
    now = datetime.now(UTC)
    desk.schedule("BY_UID", "2.25.101", accession="A1", priority="STAT", at=now)
    desk.schedule("BY_NUMBER", "2.25.102", accession="A2", priority="HIGH", at=now)
    desk.schedule("LOST", "2.25.103", accession="A3", at=now - timedelta(hours=20))
    desk.schedule("LATE", "2.25.104", accession="A4", at=now)
    desk.schedule("OTHER", "2.25.105", accession="A5", modality="CT", at=now)
    with running(node):
        yield node
    sink.stop()


def _send(node: LiveNode, folder: Path, study: str, number: str) -> None:
    ds = chest_dataset(
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.1",
        AccessionNumber=number,
    )
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{study}.dcm"
    path.write_bytes(part10(ds))
    assert node.send(path) == [0]


def _due(node: LiveNode) -> dict[str, str]:
    return {row["study_instance_uid"]: row["state"] for row in node.json("worklist", "due")}


def test_a_study_answers_its_entry_by_uid_or_accession_number_and_takes_priority_and_procedure_from_it(
    desk: Ris, node: LiveNode, tmp_path: Path
) -> None:
    due = {"2.25.101": "due", "2.25.102": "due", "2.25.103": "missed", "2.25.104": "due"}
    until(lambda: _due(node) == due, "the worklist is known, and what never came is flagged", 30)
    assert b"a scheduled study never came" in node.log.read_bytes()

    _send(node, tmp_path, "2.25.101", "something else")
    _send(node, tmp_path, "2.25.9999", "A2")  # the modality made a Study Instance UID of its own
    desk.cancel("LATE")
    until(
        lambda: _due(node) == {"2.25.103": "missed"}, "what came and what was canceled is not due any more", 60
    )
    for study, priority in (("2.25.101", STAT), ("2.25.9999", HIGH)):
        until(partial(_report, tmp_path, study), "it is reported")
        shown = node.json("worklist", "show", study)
        assert [item["priority"] for item in shown["work_items"] if item["kind"] == "analyse"] == [priority]
        assert shown["revisions"][0]["procedure"] == ["36643-5", "LN", "XR Chest 2 Views"]
        assert _report(tmp_path, study) == ("36643-5", "LN", "XR Chest 2 Views")

    _send(node, tmp_path, "2.25.103", "A3")
    until(lambda: _due(node) == {}, "what came at last is not missed any more", 60)


def _report(folder: Path, study: str) -> tuple[str, str, str] | None:
    """Return the Procedure Reported (121058, DCM) of the report on a study, once it is there."""
    for path in (folder / "pacs").glob("*.dcm"):
        ds = dcmread(path)
        if ds.StudyInstanceUID == study:
            (asked,) = [
                item.ConceptCodeSequence[0]
                for item in ds.ContentSequence
                if item.ConceptNameCodeSequence[0].CodeValue == "121058"
                and item.ConceptCodeSequence[0].CodeValue == "36643-5"
            ]
            return asked.CodeValue, asked.CodingSchemeDesignator, asked.CodeMeaning
    return None
