"""No patient attribute leaves the store but in a report: marked studies go through everything that there is.

The mark stands in every attribute that may name or describe a person, in private elements, in sequences, and where it
does not belong at all: in UIDs, numbers and codes. Then whatever was said or written is searched for it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from pydicom._dicom_dict import DicomDictionary
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from dicom_node.domain.types import Destination
from tests.live import SHAPE, LiveNode, build_bank, running, until
from tests.phantoms import chest_dataset, part10

pytestmark = pytest.mark.slow

MARK = "Qzx7"
DATES = ("19070815", "1907-08-15")
GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008)
TEXTS, NAMES = {"LO", "SH", "ST", "LT", "UT", "UC"}, {"PN"}


def attributes(kinds: set[str]) -> list[str]:
    """Return every attribute of the data dictionary with one of these VRs that an image or an order may have."""
    return [
        keyword
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items()
        if tag >> 16 in GROUPS and vr in kinds and keyword
    ]


def marked(seed: int, **overrides: Any) -> FileDataset:
    """Return a phantom that bears the mark wherever a person may be named or described."""
    dataset = chest_dataset(seed=seed, shape=SHAPE)
    for number, keyword in enumerate(attributes(TEXTS)):
        setattr(dataset, keyword, f"{MARK}t{number}")
    for number, keyword in enumerate(attributes(NAMES)):
        setattr(dataset, keyword, f"{MARK}n{number}^Given")
    for keyword in attributes({"DA"}):
        setattr(dataset, keyword, DATES[0])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, keyword, generate_uid())
    other, request = Dataset(), Dataset()
    other.PatientID, other.TypeOfPatientID = f"{MARK}other", "TEXT"
    request.RequestedProcedureDescription = f"{MARK}requested"
    dataset.OtherPatientIDsSequence, dataset.RequestAttributesSequence = [other], [request]
    block = dataset.private_block(0x0011, f"{MARK} CREATOR", create=True)
    block.add_new(0x01, "LO", f"{MARK}private")
    block.add_new(0x02, "PN", f"{MARK}private^Name")
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3"
    dataset.file_meta.PrivateInformation = f"{MARK}meta".encode()
    dataset.file_meta.ImplementationVersionName = f"{MARK}V1"
    for keyword, value in overrides.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def raw(dataset: FileDataset, old: str, new: bytes) -> bytes:
    """Return the file with a value replaced by bytes of the same length that pydicom would not write."""
    content = part10(dataset)
    assert content.count(old.encode()) >= 1
    return content.replace(old.encode(), new.ljust(len(old), b" ")[: len(old)])


def studies() -> dict[str, bytes]:
    """Return the files that are sent, by what is wrong with them."""
    good = marked(1)
    conflict = marked(2, SOPInstanceUID=good.SOPInstanceUID)
    mismatch = marked(3)
    uid_sent = f"{mismatch.SOPInstanceUID[:-1]}{9 - int(mismatch.SOPInstanceUID[-1])}"
    short = marked(4)
    short.PixelData = short.PixelData[:100]
    uid = "1.2.826.0.1.3680043.8.498.77777777"
    files = {
        "good": part10(good),
        "conflict": part10(conflict),
        # The file meta, from which the command's UID is taken, stands before the data set.
        "mismatch": part10(mismatch).replace(mismatch.SOPInstanceUID.encode(), uid_sent.encode(), 1),
        "short pixels": part10(short),
        "other part": part10(marked(5, BodyPartExamined="HAND")),
        "name as body part": raw(
            marked(6, BodyPartExamined="PLACEHOLDER1"), "PLACEHOLDER1", f"{MARK}^Body".encode()
        ),
        "name as study": raw(marked(7, StudyInstanceUID=uid), uid, f"{MARK}^Study".encode()),
        "name as series": raw(marked(8, SeriesInstanceUID=uid), uid, f"{MARK}^Series".encode()),
        "name as number": raw(
            marked(9, RescaleSlope="1.00000000000001", RescaleIntercept="0", RescaleType="US"),
            "1.00000000000001",
            f"{MARK}slope".encode(),
        ),
        "unknown character set": raw(
            marked(10, SpecificCharacterSet="ISO_IR 100"), "ISO_IR 100", f"{MARK}set".encode()
        ),
        "bytes of no character set": raw(
            marked(11, PatientName="PLACEHOLDER2"), "PLACEHOLDER2", f"{MARK}".encode() + b"\xff\xfe\x81"
        ),
        "name as birth date": raw(marked(12), DATES[0], f"{MARK}dat".encode()),
        "name as window": raw(
            marked(13, WindowCenter="2047.00000001", WindowWidth="4000"),
            "2047.00000001",
            f"{MARK}window".encode(),
        ),
    }
    files["cut off"] = part10(marked(14))[:-1500]
    return files


class Pacs:
    """Answers as archives do that quote the patient in their Error Comment."""

    def __init__(self) -> None:
        self.status = 0xC001
        entity = AE("PACS")
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(Verification)
        self.server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )

    def _store(self, event: evt.Event) -> Dataset:
        answer = Dataset()
        answer.Status = self.status
        answer.ErrorComment = f"{MARK} {event.dataset.PatientName} is unknown"
        return answer

    @property
    def destination(self) -> Destination:
        return Destination("pacs", "PACS", "127.0.0.1", self.server.server_address[1])


@contextmanager
def pacs() -> Iterator[Pacs]:
    peer = Pacs()
    try:
        yield peer
    finally:
        peer.server.shutdown()


class Heard:
    """Everything that the node and its commands have said."""

    def __init__(self, node: LiveNode) -> None:
        self.node = node
        self.said: dict[str, str] = {}

    def command(self, *arguments: str) -> str:
        done = self.node.command(*arguments)
        self.said[" ".join(arguments)] = done.stdout + done.stderr
        return done.stdout

    def everywhere(self) -> dict[str, str]:
        node = self.node
        told = {f"dicom-node {name}": text for name, text in self.said.items()}
        told["the log"] = node.log.read_text("utf-8", "replace")
        told["file names"] = "\n".join(str(path.relative_to(node.folder)) for path in node.folder.rglob("*"))
        for path in (node.folder / "store" / "audit").iterdir():
            told[f"the audit trail, {path.name}"] = path.read_text("utf-8")
        told |= columns(node.folder / "node.db")
        return told


def columns(path: Path) -> dict[str, str]:
    """Return all that each column of the database holds, as text."""
    database = sqlite3.connect(path)
    tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    found = {}
    for table in tables:
        rows = database.execute(f"SELECT * FROM {table}")  # noqa: S608 - names from the database itself
        for number, (column, *_) in enumerate(rows.description):
            held = database.execute(f"SELECT {column} FROM {table}").fetchall()  # noqa: S608
            found[f"the database, {table}.{column}"] = "\n".join(str(value) for (value,) in held)
            assert number >= 0
    database.close()
    return found


def leaks(told: dict[str, str]) -> dict[str, list[str]]:
    """Return the lines that hold the mark, by where they were found."""
    found = {
        where: [
            line for line in text.splitlines() if MARK.lower() in line.lower() or any(d in line for d in DATES)
        ]
        for where, text in told.items()
    }
    return {where: lines for where, lines in found.items() if lines}


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    build_bank(folder / "banks", folder)
    return folder / "banks"


def test_no_patient_attribute_is_told_anywhere_and_every_file_is_the_owners_alone(
    banks: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    paths = {}
    for number, (name, content) in enumerate(studies().items()):
        paths[name] = files / f"{number:02d}.dcm"
        paths[name].write_bytes(content)
    umask = os.umask(0)
    try:
        with pacs() as peer:
            _go_through_everything(tmp_path, banks, peer, paths)
    finally:
        os.umask(umask)


def _go_through_everything(tmp_path: Path, banks: Path, peer: Pacs, paths: dict[str, Path]) -> None:
    folder = tmp_path / "node"
    folder.mkdir()
    log = {"level": "DEBUG", "format": "json"}
    node = LiveNode(
        folder, banks, peer.destination, log=log, queue={"deliver_attempts": 2, "analyse_attempts": 1}
    )
    heard = Heard(node)
    heard.command("bank", "activate", "test")
    with running(node):
        assert node.process is not None
        sent = {name: node.send(path)[0] for name, path in paths.items()}
        until(lambda: _answered(node), "every study is answered, and no report is taken")
        command_line = Path(f"/proc/{node.process.pid}/cmdline").read_bytes().decode("utf-8", "replace")
        listed = node.json("worklist", "list", "--limit", "100")
        heard.command("worklist", "list")
        peer.status = 0xB000
        failed = next(row for row in listed if row["waiting"])
        item = failed["waiting"][0]["id"]
        heard.command("worklist", "retry", str(item))
        until(lambda: _delivered(node, item), "the retried report is delivered")
        heard.command("worklist", "show", failed["study_instance_uid"])
        heard.command("check")
        heard.command("selftest", "--json")
    assert sent["good"] == sent["conflict"] == 0
    assert sent["mismatch"] == 0xA900
    assert sent["name as study"] == 0xA900
    heard.command("worklist", "mark", listed[0]["study_instance_uid"], "normal")
    heard.command("bank", "rebuild", "--marked-normal")
    heard.command("score", "--json", *map(str, paths.values()))
    heard.command("audit")
    assert "DICOM Instances Transferred" in heard.said["audit"]
    assert len(listed) >= 8
    told = heard.everywhere()
    assert "image kept" in told["the log"]
    assert leaks(told | {"the command line": command_line}) == {}
    assert _modes(folder / "store") | _modes(folder, "node.db*") == set()


def _answered(node: LiveNode) -> bool:
    rows = node.json("worklist", "list", "--limit", "100")
    done = all(not row["is_open"] and row["verdict"] for row in rows)
    return bool(rows) and done and all(item["state"] == "FAILED" for row in rows for item in row["waiting"])


def _delivered(node: LiveNode, item: int) -> bool:
    rows = node.json("worklist", "list", "--limit", "100")
    return all(waiting["id"] != item for row in rows for waiting in row["waiting"])


def _modes(folder: Path, pattern: str = "**/*") -> set[str]:
    """Return the files and folders that anybody else has a right on."""
    found = [folder, *folder.rglob("*")] if pattern == "**/*" else list(folder.glob(pattern))
    return {f"{path} {stat.S_IMODE(path.stat().st_mode):o}" for path in found if path.stat().st_mode & 0o077}
