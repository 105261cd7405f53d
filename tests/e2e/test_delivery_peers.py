"""Delivery to real peers, all of one node: a DCMTK that takes Basic Text SR only, one that is killed in mid-transfer,
an Orthanc that may be queried and one that may not."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage

from dicom_node.domain.types import Destination
from dicom_node.report.header import raw_value
from tests.live import LiveNode, build_bank, running, until
from tests.peers import Orthanc, Storescp, dcmtk, free_port, orthanc, storescp
from tests.peers_validators import dciodvfy, dsrdump
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.slow

ONLY_BASIC_TEXT = """[[TransferSyntaxes]]
[Uncompressed]
TransferSyntax1 = LocalEndianExplicit
TransferSyntax2 = LittleEndianImplicit
[[PresentationContexts]]
[Reports]
PresentationContext1 = BasicTextSRStorage\\Uncompressed
[[Profiles]]
[BasicText]
PresentationContexts = Reports
"""
NAME = "Yamada^Tarou=山田^太郎=やまだ^たろう"


class Mortal:
    """A storescp that is slow to store, so that it can be killed while it does; started again it is quick."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.received = folder / "received"
        self.received.mkdir(parents=True)
        self._log = folder / "log.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [dcmtk("storescp"), "-v", *options, "-od", str(self.received), str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def is_storing(self) -> bool:
        return b"Received Store Request" in self._log.read_bytes()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


class Site:
    """A node and all that it sends to; one study was sent to it."""

    def __init__(
        self, node: LiveNode, text: Storescp, mortal: Mortal, queried: Orthanc, silent: Orthanc
    ) -> None:
        self.node, self.text, self.mortal, self.queried, self.silent = node, text, mortal, queried, silent
        self.image = chest_dataset(SpecificCharacterSet="ISO_IR 192", PatientName=NAME)

    def send(self, folder: Path) -> None:
        path = folder / "phantom.dcm"
        path.write_bytes(part10(self.image))
        assert self.node.send(path) == [0]

    def delivered(self, destination: str) -> dict[str, Any]:
        """Return how the report's way to a destination came out, once it has."""
        found: list[dict[str, Any]] = []

        def over() -> bool:
            shown = self.node.json("worklist", "show", str(self.image.StudyInstanceUID))
            items = [i for i in shown["work_items"] if i["destination"] == destination]
            if not items or items[0]["state"] != "COMPLETED":
                return False
            report = shown["reports"][0]["sop_instance_uid"]
            found[:] = [
                delivery
                for delivery in shown["deliveries"]
                if delivery["destination"] == destination and delivery["sop_instance_uid"] == report
            ]
            return True

        until(over, f"the delivery to {destination} is over")
        assert len(found) == 1
        return found[0]

    def reports_in(self, archive: Orthanc) -> list[bytes]:
        study = str(self.image.StudyInstanceUID)
        return [archive.file(one) for one in archive.find("Instance", StudyInstanceUID=study, Modality="SR")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    build_bank(folder / "banks", folder)
    profile = folder / "profile.cfg"
    profile.write_text(ONLY_BASIC_TEXT, encoding="ascii")
    mortal = Mortal(folder / "mortal")
    with ExitStack() as stack:
        text = stack.enter_context(storescp(folder / "text", "-xf", str(profile), "BasicText"))
        queried = stack.enter_context(orthanc(folder / "queried", "QUERIED", DicomAlwaysAllowFind=True))
        silent = stack.enter_context(orthanc(folder / "silent", "SILENT", DicomAlwaysAllowFind=False))
        mortal.start("--sleep-during", "60")
        stack.callback(mortal.kill)
        node = LiveNode(
            folder,
            folder / "banks",
            Destination("text", "TEXT", text.host, text.port),
            deliver={"timeout": 20.0},
        )
        others = {
            "mortal": ("MORTAL", mortal.port),
            "queried": ("QUERIED", queried.port),
            "silent": ("SILENT", silent.port),
        }
        with node.config.open("a", encoding="utf-8") as more:
            for name, (title, port) in others.items():
                more.write(
                    f'[[destinations]]\nname = "{name}"\nae_title = "{title}"\nhost = "127.0.0.1"\nport = {port}\n'
                )
        assert node.command("bank", "activate", "test").returncode == 0
        stack.enter_context(running(node))
        made = Site(node, text, mortal, queried, silent)
        made.send(folder)
        yield made


def test_a_peer_killed_in_mid_transfer_gets_the_report_once_when_it_is_back(site: Site) -> None:
    until(site.mortal.is_storing, "the peer has begun to store", 120)
    site.mortal.kill()
    assert list(site.mortal.received.iterdir()) == []
    site.mortal.start()
    delivery = site.delivered("mortal")
    (received,) = site.mortal.received.iterdir()
    report = dcmread(received)
    assert (report.SOPClassUID, report.SOPInstanceUID) == (
        Comprehensive3DSRStorage,
        delivery["sop_instance_uid"],
    )
    assert report.StudyInstanceUID == site.image.StudyInstanceUID


def test_a_peer_that_takes_basic_text_only_gets_the_report_as_that_under_the_same_name(
    site: Site, tmp_path: Path
) -> None:
    delivery = site.delivered("text")
    assert "sent as basic-text" in str(delivery)
    (received,) = site.text.files
    report = dcmread(received)
    assert report.SOPClassUID == BasicTextSRStorage
    assert raw_value(report, "PatientName") == NAME.encode()
    assert dciodvfy(received.read_bytes(), tmp_path, "BasicTextSR") == []
    assert "More unusual than" in dsrdump(received.read_bytes(), tmp_path)


def test_an_archive_that_may_be_queried_confirms_the_report_and_holds_it_once(site: Site) -> None:
    assert site.delivered("queried")["confirmed"] == "found"
    (content,) = site.reports_in(site.queried)
    assert b"More unusual than" in content


def test_an_archive_that_answers_no_question_holds_the_report_unconfirmed(site: Site) -> None:
    assert site.delivered("silent")["confirmed"] == "unconfirmed"
    assert len(site.reports_in(site.silent)) == 1
