"""The PACS of the demo: Debian's Orthanc where it is installed, else a small storage SCP of our own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dicom_node.domain.errors import SelftestError

AE_TITLE = "DEMOPACS"


class DemoPacs(Protocol):
    """What the demo needs of a PACS."""

    dicom_port: int
    where: str

    def report_of(self, study_instance_uid: str) -> bytes | None:
        """Return the SR of a study as a Part 10 file, or None while there is none."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start(folder: Path) -> Iterator[DemoPacs]:
    """Run a PACS that keeps its files in `folder`, and stop it at the end."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")
    with _orthanc(program, folder) if program else _sink(folder) as pacs:
        yield pacs


class _Orthanc:
    def __init__(self, dicom_port: int, http_port: int) -> None:
        self.dicom_port = dicom_port
        self.where = f"Orthanc, http://127.0.0.1:{http_port}/ (explore the studies in a browser)"
        self._url = f"http://127.0.0.1:{http_port}"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self._url}{path}", timeout=10) as answer:  # noqa: S310 - our own loopback URL
            return bytes(answer.read())

    def report_of(self, study_instance_uid: str) -> bytes | None:
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_instance_uid, "Modality": "SR"}}
        request = urllib.request.Request(f"{self._url}/tools/find", data=json.dumps(query).encode())  # noqa: S310 - as above
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
            found = json.loads(answer.read())
        return self.get(f"/instances/{found[0]}/file") if found else None


@contextmanager
def _orthanc(program: str, folder: Path) -> Iterator[_Orthanc]:
    folder.mkdir(parents=True, exist_ok=True)
    pacs = _Orthanc(free_port(), http := free_port())
    settings = {
        "Name": "demo PACS",
        "StorageDirectory": str(folder.resolve()),
        "IndexDirectory": str(folder.resolve()),
        "DicomAet": AE_TITLE,
        "DicomAlwaysAllowFind": True,  # the node asks whether its reports are there
        "DicomPort": pacs.dicom_port,
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=log)  # noqa: S603 - found on the PATH above
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                pacs.get("/system")
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SelftestError(
                        f"Orthanc did not start; its log is {folder / 'orthanc.log'}"
                    ) from error
                time.sleep(0.2)
        yield pacs
    finally:
        process.terminate()
        process.wait(timeout=30)


class _Sink:
    def __init__(self, dicom_port: int, folder: Path) -> None:
        self.dicom_port = dicom_port
        self.where = f"a storage SCP that writes files to {folder} (install Orthanc to see a real PACS)"
        self._folder = folder

    def report_of(self, study_instance_uid: str) -> bytes | None:
        from pydicom import dcmread

        for path in sorted(self._folder.glob("*.dcm")):
            header = dcmread(path, stop_before_pixels=True)
            if header.StudyInstanceUID == study_instance_uid and header.Modality == "SR":
                return path.read_bytes()
        return None


@contextmanager
def _sink(folder: Path) -> Iterator[_Sink]:
    from dicom_node.deliver.sink import StorageSink

    sink = StorageSink(folder, AE_TITLE)
    _, port = sink.start()
    try:
        yield _Sink(port, folder)
    finally:
        sink.stop()
