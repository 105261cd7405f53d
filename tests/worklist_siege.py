"""Two nodes on one PostgreSQL and one store work off a worklist; one of them is killed for good on the way."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from tests.live import SHAPE, LiveNode, until
from tests.phantoms import chest_dataset
from tests.scripted_archive import Script, running
from tests.ups_provider import UpsProvider, item, serving


class OfStudies(Script):
    """An archive that sends what belongs to the study that is asked for."""

    def send(self, event: Any) -> Any:
        wanted = [ds for ds in self.sends if ds.StudyInstanceUID == event.identifier.StudyInstanceUID]
        yield len(wanted)
        for ds in wanted:
            yield 0xFF00, ds


@dataclass
class Tally:
    """What was seen."""

    ways: Counter[tuple[str, ...]]
    reports: Counter[str]
    tasks: Counter[str]
    completed_at_kill: int
    seconds: float


def work_off(folder: Path, banks: Path, database: str, studies: int, seconds: float) -> Tally:
    """Put studies on a worklist, start two nodes, kill one when a third is done, wait until all are."""
    uids = [f"2.25.31{number}" for number in range(studies)]
    images = []
    for number, uid in enumerate(uids):
        ds = chest_dataset(
            seed=number % 10,
            form="cr",
            shape=SHAPE,
            StudyInstanceUID=uid,
            SeriesInstanceUID=f"{uid}.1",
            SOPInstanceUID=f"{uid}.1.1",
        )
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        images.append(ds)
    provider = UpsProvider()
    provider.put(*(item(number, uid) for number, uid in enumerate(uids)))
    sink = StorageSink(folder / "pacs", "PACS")
    host, port = sink.start()
    began = time.monotonic()
    nodes = []
    with running(OfStudies(images)) as archive, serving(provider):
        try:
            for name in ("one", "two"):
                (folder / name).mkdir()
                node = LiveNode(
                    folder / name,
                    banks,
                    Destination("pacs", "PACS", host, port),
                    db={"url": database},
                    store={"root": str(folder / "store")},
                )
                here = {"host": "127.0.0.1"}
                node.add("archives", name="pacs", ae_title="ARCHIVE", port=archive.port, **here)
                node.add(
                    "ups_sources",
                    name="ris",
                    ae_title="MANAGER",
                    port=provider.port,
                    poll_seconds=1.0,
                    items_at_a_time=40,
                    **here,
                )
                nodes.append(node)
            assert nodes[0].command("bank", "activate", "test").returncode == 0
            for node in nodes:
                node.start()
            until(lambda: _completed(provider) >= studies // 3, "a third is completed", seconds)
            nodes[0].kill()
            at_kill = _completed(provider)
            until(lambda: _completed(provider) == studies, "every step is completed", seconds)
            # The provider answers before the node has written the answer down.
            until(lambda: set(_tasks(nodes[1])) == {"completed"}, "every task is written down", seconds)
            tasks = _tasks(nodes[1])
            assert nodes[1].stop() == 0
        finally:
            for node in nodes:
                if node.process is not None and node.process.poll() is None:
                    node.kill()
            sink.stop()
    sent = [dcmread(BytesIO(path.read_bytes())) for path in (folder / "pacs").glob("*.dcm")]
    return Tally(
        Counter(tuple(held.went) for held in provider.items.values()),
        Counter(str(report.StudyInstanceUID) for report in sent),
        tasks,
        at_kill,
        time.monotonic() - began,
    )


def _tasks(node: LiveNode) -> Counter[str]:
    return Counter(task["state"] for task in node.json("worklist", "tasks", "--limit", "1000"))


def _completed(provider: UpsProvider) -> int:
    return sum(held.went[-1] == "COMPLETED" for held in provider.items.values())
