"""An archive that does what a test says, by pynetdicom: a foreign one never fails in just the way that is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt

from dicom_node.domain.retrieval import Archive
from tests.phantoms import chest_dataset

FIND = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
GET = "1.2.840.10008.5.1.4.1.2.2.3"
CR = "1.2.840.10008.5.1.4.1.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.826.0.1.1"


def image(number: int, study: str = STUDY, **elements: Any) -> Dataset:
    """Return a small CR image of a series of its study."""
    ds = chest_dataset(
        form="cr",
        shape=(64, 64),
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        SOPInstanceUID=f"{study}.1.{number}",
        **elements,
    )
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


@dataclass
class Script:
    """What the archive does.

    Attributes
    ----------
    listed
        What it says it holds; None for what it sends.
    sends
        What it sends at C-GET and C-MOVE.
    abort_after
        So many images later it aborts the association.
    get_fails, find_fails
        It answers this status at once.
    move_to
        Address of the one it sends to at C-MOVE; None where it knows nobody of that title.
    says_moved
        It says that it moved so many and sends nothing.
    endless
        Its answers to a query never end.
    """

    sends: list[Dataset]
    listed: list[Dataset] | None = None
    abort_after: int | None = None
    get_fails: int | None = None
    find_fails: int | None = None
    move_to: tuple[str, int] | None = None
    endless: bool = False
    services: tuple[str, ...] = (FIND, MOVE, GET)
    asked: list[tuple[str, Dataset]] = field(default_factory=list)
    canceled: int = 0

    def find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        query = event.identifier
        self.asked.append(("find", query))
        if self.find_fails is not None:
            yield self.find_fails, None
            return
        held = self.sends if self.listed is None else self.listed
        keys = {
            "STUDY": "StudyInstanceUID",
            "SERIES": "SeriesInstanceUID",
            "IMAGE": "SOPInstanceUID",
        }
        key, seen = keys[query.QueryRetrieveLevel], set()
        number = 0
        while self.endless:
            number += 1
            if event.is_cancelled:
                self.canceled += 1
                yield 0xFE00, None
                return
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{number}"
            yield 0xFF00, match
        for ds in held:
            if query.get("StudyInstanceUID") not in (None, "", ds.StudyInstanceUID) or ds[key].value in seen:
                continue
            seen.add(ds[key].value)
            match = Dataset()
            for element in query:
                if element.keyword in ds:
                    match[element.tag] = ds[element.tag]
            yield 0xFF00, match

    def send(self, event: Any) -> Iterator[Any]:
        self.asked.append(("retrieve", event.identifier))
        if self.get_fails is not None:
            yield 1
            yield self.get_fails, Dataset()
            return
        yield max(1, len(self.sends))
        for number, ds in enumerate(self.sends):
            if number == self.abort_after:
                event.assoc.abort()
                return
            yield 0xFF00, ds

    def move(self, event: Any) -> Iterator[Any]:
        if self.move_to is None:
            yield None, None
            return
        yield self.move_to
        yield from self.send(event)


@contextmanager
def running(script: Script, **more: Any) -> Iterator[Archive]:
    """Run the archive; yields it as the node knows it."""
    entity = AE("ARCHIVE")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
    for service in script.services:
        entity.add_supported_context(service)
    for stored in (CR, CT):
        entity.add_supported_context(stored, scu_role=True, scp_role=True)
        entity.add_requested_context(stored, ExplicitVRLittleEndian)
    server = entity.start_server(
        ("127.0.0.1", 0),
        block=False,
        evt_handlers=[
            (evt.EVT_C_FIND, script.find),
            (evt.EVT_C_GET, script.send),
            (evt.EVT_C_MOVE, script.move),
        ],
    )
    try:
        port = server.socket.getsockname()[1]
        yield Archive("scripted", "ARCHIVE", "127.0.0.1", port, **{"timeout": 5.0, **more})
    finally:
        server.shutdown()
