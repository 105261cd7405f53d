"""Real peers for tests: DCMTK's tools and Debian's Orthanc as processes, and small images to send to them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CR = "1.2.840.10008.5.1.4.1.1.1"
DEADLINE = 30.0


def require(program: str) -> str:
    """Return the path of a peer program; skip the test where it is absent, or fail if peers are required.

    DICOM_NODE_REQUIRE_PEERS=1 says that they are.
    """
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        reason = f"the peer program {program} is not installed (Debian: dcmtk, orthanc)"
        if os.environ.get("DICOM_NODE_REQUIRE_PEERS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def dcmtk(program: str) -> str:
    """Return the path of one of DCMTK's programs, not of pynetdicom's of the same name in the virtual environment."""
    return shutil.which(program, path="/usr/bin:/usr/local/bin:/opt/homebrew/bin") or require(program)


def free_port() -> int:
    """Return a TCP port that was free on 127.0.0.1 a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + DEADLINE
    while not ready():
        if process.poll() is not None or time.monotonic() > until:
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} did not get ready (exit code {process.poll()}):\n{end}")
        time.sleep(0.02)


@contextmanager
def _running(command: list[str], folder: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(ready, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass(frozen=True)
class Storescp:
    """A running DCMTK storescp and the folder it writes to."""

    host: str
    port: int
    folder: Path

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "received").iterdir())


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[Storescp]:
    """Run DCMTK's storescp on a free port; `options` are passed on."""
    program = require("storescp")
    (folder / "received").mkdir(parents=True)
    port = free_port()
    command = [program, *options, "--output-directory", str(folder / "received"), str(port)]
    with _running(command, folder, lambda: _listens(port)):
        yield Storescp("127.0.0.1", port, folder)


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: its DICOM side and its REST interface."""

    ae_title: str
    host: str
    port: int
    http_port: int

    def get(self, path: str) -> bytes:
        """Return the body of a REST resource."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=DEADLINE) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> object:
        """Return a REST resource that is JSON."""
        return json.loads(self.get(path))

    def find(self, level: str, **query: str) -> list[str]:
        """Return the Orthanc identifiers of the resources at `level` (Study, Series, Instance) that match."""
        body = json.dumps({"Level": level, "Query": query}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/tools/find", data=body)
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:  # noqa: S310 - always http
            return [str(found) for found in json.loads(answer.read())]

    def knows(self, ae_title: str, port: int) -> None:
        """Have it send to an AE title on 127.0.0.1, as one of its modalities."""
        body = json.dumps({"AET": ae_title, "Host": "127.0.0.1", "Port": port}).encode()
        url = f"http://127.0.0.1:{self.http_port}/modalities/{ae_title.lower()}"
        request = urllib.request.Request(url, data=body, method="PUT")
        urllib.request.urlopen(request, timeout=DEADLINE).close()  # noqa: S310 - always http

    def file(self, identifier: str) -> bytes:
        """Return one instance as the Part 10 file that Orthanc holds."""
        return self.get(f"/instances/{identifier}/file")


@contextmanager
def orthanc(folder: Path, ae_title: str = "ORTHANC", **settings: object) -> Iterator[Orthanc]:
    """Run Orthanc as a PACS that takes everything from everyone on 127.0.0.1.

    Parameters
    ----------
    folder
        Becomes its working folder; made if absent.
    settings
        Keys of Orthanc's configuration that override these.
    """
    program = require("Orthanc")
    folder.mkdir(parents=True, exist_ok=True)
    port, http_port = free_port(), free_port()
    configuration: dict[str, object] = {
        "Name": ae_title,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpServerEnabled": True,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": ae_title,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomCheckModalityHost": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "OverwriteInstances": True,
        "StableAge": 1,
        **settings,
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration, indent=1))
    peer = Orthanc(ae_title, "127.0.0.1", port, http_port)

    def ready() -> bool:
        try:
            return bool(peer.get("/system")) and _listens(port)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    with _running([program, str(folder / "orthanc.json")], folder, ready):
        yield peer


def write_image(
    path: Path,
    transfer_syntax: str = ExplicitVRLittleEndian,
    *,
    sop_class: str = CR,
    sop_instance_uid: str = "",
    study_instance_uid: str = "",
    size: tuple[int, int] = (16, 12),
    **elements: object,
) -> bytes:
    """Write a small image as a Part 10 file and return the bytes of its data set alone.

    In a compressed transfer syntax the one fragment is no image: nothing on the way to the store decodes it.
    """
    syntax = UID(transfer_syntax)
    rows, columns = size
    image = Dataset()
    image.SpecificCharacterSet = "ISO_IR 192"
    image.SOPClassUID = sop_class
    image.SOPInstanceUID = sop_instance_uid or generate_uid()
    image.StudyInstanceUID = study_instance_uid or generate_uid()
    image.SeriesInstanceUID = generate_uid()
    image.PatientName = "Phantom^Test"
    image.PatientID = "0"
    image.StudyDate = image.StudyTime = image.AccessionNumber = image.StudyID = ""
    image.Modality = "CR"
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.Rows, image.Columns = rows, columns
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    pixels = bytes(range(256)) * (rows * columns * 2 // 256 + 1)
    if syntax.is_encapsulated:
        image.PixelData = encapsulate([pixels[:1000]])
        image["PixelData"].is_undefined_length = True
    else:
        image.PixelData = pixels[: rows * columns * 2]
    image["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    meta.ImplementationClassUID = "1.2.3.4"
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = syntax.is_little_endian, syntax.is_implicit_VR
    write_dataset(encoded, image)
    data_set = bytes(encoded.getvalue())
    if syntax.is_deflated:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data_set = deflate.compress(data_set) + deflate.flush()
        data_set += b"\0" * (len(data_set) % 2)
    header = DicomBytesIO()
    header.is_little_endian, header.is_implicit_VR = True, False
    write_file_meta_info(header, meta)
    path.write_bytes(b"\0" * 128 + b"DICM" + bytes(header.getvalue()) + data_set)
    return data_set
