"""The receiver and the sender against peers that are not pynetdicom: DCMTK and Orthanc."""

from __future__ import annotations

import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node.config import Receive
from dicom_node.deliver import scu
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Destination, Ingested, Received
from dicom_node.receive.scp import Scp
from tests import peers

pytestmark = pytest.mark.peer("dcmtk")

SR = "1.2.840.10008.5.1.4.1.1.88.34"
TITLE = {"calling_ae_title": "NODE", "timeout": 20.0}
CLEAN_SYNTAXES = {
    "-xi": ImplicitVRLittleEndian,
    "-xe": ExplicitVRLittleEndian,
    "-xb": ExplicitVRBigEndian,
    "-xd": DeflatedExplicitVRLittleEndian,
    "-xy": JPEGBaseline8Bit,
    "-xx": JPEGExtended12Bit,
    "-xs": JPEGLosslessSV1,
    "-xr": RLELossless,
    "-xt": JPEGLSLossless,
    "-xu": JPEGLSNearLossless,
    "-xv": JPEG2000Lossless,
    "-xw": JPEG2000,
}
"""storescu's option that proposes a syntax, and the syntax; a compressed file goes out as it is."""


class Kept:
    def __init__(self, folder: Path) -> None:
        self.incoming, self.folder = folder / "incoming", folder / "kept"
        self.incoming.mkdir()
        self.folder.mkdir()
        self.received: list[Received] = []
        self.ended: list[tuple[str, str]] = []
        self.told = threading.Condition()

    def ingest(self, received: Received) -> Ingested:
        received.path.rename(self.folder / received.path.name)
        self.received.append(received)
        return Ingested.NEW

    def end(self, association_id: str, how: str) -> None:
        with self.told:
            self.ended.append((association_id, how))
            self.told.notify_all()


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


@pytest.fixture
def scp(kept: Kept):
    with _scp(kept) as running:
        yield running


def _scp(kept: Kept, **settings: object) -> Scp:
    return Scp(
        Receive.model_validate({"port": 0, **settings}),
        incoming=kept.incoming,
        ingest=kept.ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=kept.end,
        clock=lambda: datetime.now(UTC),
    )


def _run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [peers.require(program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _report(tmp_path: Path, syntax: str = ExplicitVRLittleEndian, **elements: object) -> tuple[bytes, bytes]:
    path = tmp_path / "report.dcm"
    data_set = peers.write_image(path, syntax, sop_class=SR, sop_instance_uid="1.2.3.4", **elements)
    return path.read_bytes(), data_set


def test_echoscu_is_answered(scp):
    answer = _run("echoscu", "-v", "127.0.0.1", str(scp.address[1]))
    assert answer.returncode == 0, answer.stderr
    assert "Received Echo Response (Success)" in answer.stdout + answer.stderr


def test_echoscu_is_rejected_with_the_standards_reason(kept):
    with _scp(kept, require_called_ae_title=True, peers=[{"ae_title": "PACS"}]) as scp:
        port = str(scp.address[1])
        wrong = _run("echoscu", "-aet", "PACS", "-aec", "OTHER", "127.0.0.1", port)
        assert "Called AE Title Not Recognized" in wrong.stderr
        unknown = _run("echoscu", "-aet", "OTHER", "-aec", "DICOMNODE", "127.0.0.1", port)
        assert "Calling AE Title Not Recognized" in unknown.stderr
        assert _run("echoscu", "-aet", "PACS", "-aec", "DICOMNODE", "127.0.0.1", port).returncode == 0


@pytest.mark.parametrize(("option", "syntax"), CLEAN_SYNTAXES.items(), ids=lambda v: getattr(v, "name", None))
def test_storescu_stores_in_each_syntax_it_knows(option, syntax, scp, kept, tmp_path):
    peers.write_image(tmp_path / "a.dcm", syntax, sop_instance_uid="1.2.3.4")
    answer = _run("storescu", "-v", option, "127.0.0.1", str(scp.address[1]), str(tmp_path / "a.dcm"))
    assert answer.returncode == 0, answer.stderr
    (received,) = kept.received
    assert received.transfer_syntax_uid == syntax
    assert received.sop_instance_uid == "1.2.3.4"
    assert (received.calling_ae_title, received.called_ae_title) == ("STORESCU", "ANY-SCP")
    file = dcmread(kept.folder / received.path.name)
    assert file.file_meta.TransferSyntaxUID == syntax
    assert file == dcmread(tmp_path / "a.dcm")
    with kept.told:
        assert kept.told.wait_for(lambda: kept.ended, 10)
    assert kept.ended[0][1] == "released"


def test_dcmdump_reads_a_received_file(scp, kept, tmp_path):
    peers.write_image(tmp_path / "a.dcm", JPEGLossless)
    assert scu.send_files(Destination("node", "NODE", *scp.address), [tmp_path / "a.dcm"], **TITLE) == [0]
    dump = _run("dcmdump", str(kept.folder / kept.received[0].path.name))
    assert dump.returncode == 0, dump.stderr
    assert "=JPEGLossless:Non-hierarchical:Process14" in dump.stdout.replace("Process 14", "Process14")


def test_a_storescu_that_is_killed_in_mid_transfer_leaves_nothing(scp, kept, tmp_path):
    peers.write_image(tmp_path / "a.dcm", size=(5000, 5000))
    begun, killed = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        killed.wait(20)

    scp._admit_disk = hold
    command = [peers.require("storescu"), "127.0.0.1", str(scp.address[1]), str(tmp_path / "a.dcm")]
    sender = subprocess.Popen(command)
    assert begun.wait(20)
    sender.kill()
    sender.wait()
    killed.set()
    with kept.told:
        assert kept.told.wait_for(lambda: kept.ended, 10)
    assert kept.ended[0][1] == "aborted"
    assert kept.received == []
    assert list(kept.incoming.iterdir()) == []


def test_storescp_receives_a_report(tmp_path):
    content, _ = _report(tmp_path, PatientName="山田^太郎")
    with peers.storescp(tmp_path / "scp") as peer:
        destination = Destination("dcmtk", "STORESCP", peer.host, peer.port)
        scu.echo(destination, **TITLE)
        delivery = scu.send(destination, content, **TITLE)
        assert delivery.status == 0x0000
        (file,) = peer.files
        assert str(dcmread(file).PatientName) == "山田^太郎"


def test_storescp_that_takes_only_implicit_receives_the_same_data(tmp_path):
    content, _ = _report(tmp_path, PatientName="Иванов")
    with peers.storescp(tmp_path / "scp", "+xi") as peer:
        scu.send(Destination("dcmtk", "STORESCP", peer.host, peer.port), content, **TITLE)
        (file,) = peer.files
        held = dcmread(file)
        assert held.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        assert str(held.PatientName) == "Иванов"


def test_storescp_that_refuses_means_away(tmp_path):
    content, _ = _report(tmp_path)
    with (
        peers.storescp(tmp_path / "scp", "--refuse") as peer,
        pytest.raises(DestinationAwayError, match="rejected"),
    ):
        scu.send(Destination("dcmtk", "STORESCP", peer.host, peer.port), content, **TITLE)


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
def test_storescp_that_aborts_means_away(option, tmp_path):
    content, _ = _report(tmp_path)
    with peers.storescp(tmp_path / "scp", option) as peer, pytest.raises(DestinationAwayError):
        scu.send(Destination("dcmtk", "STORESCP", peer.host, peer.port), content, **TITLE)


def test_storescp_whose_disk_is_gone_means_away(tmp_path):
    content, _ = _report(tmp_path)
    with peers.storescp(tmp_path / "scp") as peer:
        shutil.rmtree(tmp_path / "scp" / "received")
        with pytest.raises(DestinationAwayError, match="0xA700"):
            scu.send(Destination("dcmtk", "STORESCP", peer.host, peer.port), content, **TITLE)


def test_orthanc_takes_a_report_and_gives_the_same_bytes_back(tmp_path):
    content, data_set = _report(tmp_path, PatientName="山田^太郎")
    with peers.orthanc(tmp_path / "orthanc") as pacs:
        destination = Destination("orthanc", pacs.ae_title, pacs.host, pacs.port)
        scu.echo(destination, **TITLE)
        assert scu.send(destination, content, **TITLE).status == 0
        assert scu.send(destination, content, **TITLE).status == 0, "sending again does no harm"
        (identifier,) = pacs.find("Instance", SOPInstanceUID="1.2.3.4")
        assert pacs.file(identifier).endswith(data_set)


def test_orthanc_that_does_not_know_the_node_means_away_until_it_does(tmp_path):
    content, _ = _report(tmp_path)
    settings = {"DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": False}
    with peers.orthanc(tmp_path / "orthanc", **settings) as pacs:
        with pytest.raises((DestinationAwayError, DestinationRefusedError)) as raised:
            scu.send(Destination("orthanc", pacs.ae_title, pacs.host, pacs.port), content, **TITLE)
        assert isinstance(raised.value, DestinationAwayError), str(raised.value)
