"""Nodes that fetch, and archives to fetch from, for tests."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import generate_uid

from dicom_node.config import Config
from dicom_node.domain.retrieval import Archive, Fetch, Fetched
from dicom_node.node import Node, archives_of, fetcher, open_node, receiving
from tests.peers import CR, DEADLINE, Orthanc, _listens, _running, dcmtk, free_port, orthanc, write_image

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SR = "1.2.840.10008.5.1.4.1.1.88.34"
HOWS = ("c-get", "c-move", "wado")


@dataclass
class Fetching:
    """A node with its SCP, and archives by the way that they are fetched from."""

    node: Node
    port: int
    archives: dict[str, Archive] = field(default_factory=dict)

    def fetch(self, how: str, study: str, **parts: tuple[str, ...]) -> Fetched:
        return fetcher(self.node)(self.archives[how], Fetch(study, **parts))


def section(
    how: str, name: str, title: str, port: int, http_port: int = 0, **more: object
) -> dict[str, object]:
    """Return an `[[archives]]` section."""
    where: dict[str, object] = {"ae_title": title, "host": "127.0.0.1", "port": port}
    if how == "wado":
        where = {"url": f"http://127.0.0.1:{http_port}/dicom-web"}
    return {"name": name, "how": how, "timeout": 20, **where, **more}


@contextmanager
def fetching(root: Path, port: int, archives: list[dict[str, object]]) -> Iterator[Fetching]:
    """Run a node's SCP on `port`, with these archives configured; its store and database are under `root`."""
    config = Config.model_validate(
        {
            "receive": {"host": "127.0.0.1", "port": port, "ae_title": "DICOMNODE"},
            "store": {"root": root / "store", "reserve_megabytes": 1},
            "db": {"url": f"sqlite:///{root / 'node.db'}"},
            "archives": archives,
        }
    )
    with open_node(config) as node, receiving(node):
        known = archives_of(config)
        yield Fetching(node, port, {str(known[name].how): known[name] for name in known})


def write_study(folder: Path, images: int = 2, series: int = 1, **elements: object) -> tuple[str, list[Path]]:
    """Write a study of small CR images; return its UID and files, one after the other."""
    study = generate_uid()
    paths = []
    folder.mkdir(parents=True, exist_ok=True)
    for _ in range(series):
        uid = generate_uid()
        for _ in range(images):
            path = folder / f"{len(list(folder.iterdir()))}.dcm"
            more = {"StudyDate": "20260105", "StudyTime": "", "SeriesInstanceUID": uid, **elements}
            write_image(path, sop_class=CR, study_instance_uid=study, **more)
            paths.append(path)
    return study, paths


def fill(peer: Orthanc, paths: list[Path]) -> None:
    """Put files into an Orthanc."""
    for path in paths:
        request = urllib.request.Request(f"http://127.0.0.1:{peer.http_port}/instances", data=path.read_bytes())
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:  # noqa: S310 - always http
            assert json.loads(answer.read())["Status"] in {"Success", "AlreadyStored"}


@contextmanager
def pacs(folder: Path, node_port: int, **settings: object) -> Iterator[Orthanc]:
    """Run an Orthanc that lets everyone query and retrieve, with DICOMweb, and that knows a node."""
    more: dict[str, object] = {
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"node": ["DICOMNODE", "127.0.0.1", node_port]},
        **settings,
    }
    if PLUGIN.exists():
        more |= {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    with orthanc(folder, **more) as peer:
        yield peer


@contextmanager
def dcmqrscp(folder: Path, node_port: int) -> Iterator[int]:
    """Run DCMTK's dcmqrscp as the archive DCMQR that knows a node; yields its port."""
    program = dcmtk("dcmqrscp")
    (folder / "db").mkdir(parents=True)
    port = free_port()
    (folder / "dcmqrscp.cfg").write_text(
        f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
node = (DICOMNODE, localhost, {node_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
DCMQR {folder / "db"} RW (200, 1024mb) ANY
AETable END
""",
        encoding="ascii",
    )
    with _running([program, "-c", str(folder / "dcmqrscp.cfg")], folder, lambda: _listens(port)):
        yield port


def store_into(port: int, title: str, paths: list[Path]) -> None:
    """Send files with DCMTK's storescu."""
    command = [dcmtk("storescu"), "-aec", title, "127.0.0.1", str(port), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
