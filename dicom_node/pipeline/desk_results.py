"""The node's own DICOM objects for those who fetch them: their bytes, and what is in them as DICOM JSON (PS3.18 F).

They are this node's work, compared with their digests before they are read. Owns a bounded memory of what queries ask.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from pydicom import Dataset, dcmread
from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import NotFoundError, StoreError
from dicom_node.domain.reading import Held
from dicom_node.store import results
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "Modality",
    "ReferringPhysicianName", "SeriesDescription", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "SeriesNumber", "InstanceNumber", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated",
)  # fmt: skip
"""What a query matches and returns (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""
REMEMBERED = 20_000
_LARGEST_VALUE = 65_536


class Results:
    """Reads results. Safe to share between threads."""

    def __init__(self, engine: Engine, files: FileStore) -> None:
        self._engine = engine
        self._files = files
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def held(self) -> Sequence[Held]:
        """Return every one that is still held."""
        with reading(self._engine) as conn:
            return results.held(conn)

    def content(self, sop_instance_uid: str) -> bytes:
        """Return one as a Part 10 file. Raises NotFoundError."""
        with reading(self._engine) as conn:
            held = results.one(conn, sop_instance_uid)
        if held is None:
            raise NotFoundError(f"object {sop_instance_uid} is none that this node made and holds")
        return self._files.read_report(held.digest)

    def described(self, held: Held) -> Mapping[str, Any]:
        """Return what queries ask of one, as DICOM JSON; of one that is damaged, which it is and no more."""
        with self._lock:
            if (known := self._known.get(held.digest)) is not None:
                self._known.move_to_end(held.digest)
                return known
        try:
            ds = self._read(self._files.read_report(held.digest))
        except StoreError as error:  # it must not hold up a query for others
            log.warning("a result cannot be described", extra={"reason": str(error)})
            return _named(held)
        wanted = Dataset()
        for keyword in KEYWORDS:
            if keyword in ds:
                wanted[keyword] = ds[keyword]
        told = wanted.to_json_dict()
        with self._lock:
            self._known[held.digest] = told
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return told

    def metadata(self, sop_instance_uid: str) -> Mapping[str, Any]:
        """Return one as DICOM JSON, without pixels and other long binary values. Raises NotFoundError."""
        ds = self._read(self.content(sop_instance_uid))
        for element in list(ds):
            if isinstance(element.value, bytes) and len(element.value) > _LARGEST_VALUE:
                del ds[element.tag]
        ds.pop("PixelData", None)
        told: Mapping[str, Any] = ds.to_json_dict()
        return told

    def _read(self, content: bytes) -> Dataset:
        ds = dcmread(BytesIO(content))
        ds.decode()
        return ds


def _named(held: Held) -> Mapping[str, Any]:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = held.sop_class_uid, held.sop_instance_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = held.study_instance_uid, held.series_instance_uid
    told: Mapping[str, Any] = ds.to_json_dict()
    return told
