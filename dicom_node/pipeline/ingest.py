"""Takes custody of what a peer sent: on return the bytes are on the disk and the row is committed.

Owns the order file -> row -> Success. Reads the few header elements that say where an image belongs and
decodes nothing; knows nothing of pynetdicom.
"""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import writing
from dicom_node.domain.errors import CannotUnderstandError, DataSetMismatchError
from dicom_node.domain.ids import check_uid, quoted_uid
from dicom_node.domain.types import Ingested, Received
from dicom_node.store import instances, reports
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

READ_ERRORS = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    NotImplementedError,
    AttributeError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are not what their lengths say."""

_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "DeviceUID"]
_COMMENT = "each image needs its own SOP Instance, Series and Study Instance UID"


class Ingest:
    """Callable that the receiver hands each Received to.

    Parameters
    ----------
    engine, files
        Where rows and bytes go.
    device_uid
        This node's own device UID: objects that carry it are not processed again (loop guard).
    clock
        Returns the current moment, timezone-aware.
    """

    def __init__(
        self, engine: Engine, files: FileStore, device_uid: str, clock: Callable[[], datetime]
    ) -> None:
        self._engine = engine
        self._files = files
        self._device_uid = device_uid
        self._clock = clock

    def __call__(self, received: Received) -> Ingested:
        """Keep one instance durably.

        Raises
        ------
        CannotUnderstandError
            If the bytes are no data set or name no study.
        DataSetMismatchError
            If the data set is another SOP class or instance than the command said.
        OutOfResourcesError, DatabaseError
            If the disk or the database cannot take it now. Nothing was kept; the peer may send again.
        """
        header = read_header(received.path)
        uids = _identify(header, received)
        if header["DeviceUID"] == self._device_uid:
            return self._own(received, uids[0])
        digest, size = self._files.digest(received.path, received.dataset_offset)
        self._files.adopt(received.path, digest)
        with writing(self._engine) as conn:
            ingested = instances.add(
                conn,
                received,
                study_instance_uid=uids[0],
                series_instance_uid=uids[1],
                digest=digest,
                size=size,
                at=self._clock(),
            )
        log.info(
            "image kept",
            extra={
                "ingested": ingested.value,
                "sop_instance_uid": received.sop_instance_uid,
                "study_instance_uid": uids[0],
                "bytes": size,
            },
        )
        return ingested

    def _own(self, received: Received, study_instance_uid: str) -> Ingested:
        received.path.unlink(missing_ok=True)
        with writing(self._engine) as conn:
            known = reports.is_own(conn, received.sop_instance_uid)
            events.record(
                conn,
                self._clock(),
                "instance.own",
                study_instance_uid=study_instance_uid,
                sop_instance_uid=received.sop_instance_uid,
                known=known,
            )
        log.info("own object came back, not processed", extra={"sop_instance_uid": received.sop_instance_uid})
        return Ingested.OWN


def read_header(path: Path) -> dict[str, str]:
    """Read the elements that say what an image is and where it belongs; no other element is parsed.

    Returns
    -------
    dict
        Value by keyword; "" where the element is absent or empty.

    Raises
    ------
    CannotUnderstandError
        If the file is no DICOM data set, or one of these elements is not what its VR says.
    """
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        return {keyword: str(header.get(keyword, "") or "") for keyword in _TAGS}
    except READ_ERRORS as error:
        raise CannotUnderstandError(
            f"the data set cannot be read ({type(error).__name__}); send a complete DICOM data set in the "
            "transfer syntax that was negotiated"
        ) from error


def _identify(header: Mapping[str, str], received: Received) -> tuple[str, str]:
    for keyword, command in (
        ("SOPClassUID", received.sop_class_uid),
        ("SOPInstanceUID", received.sop_instance_uid),
    ):
        held = header[keyword]
        if held != command:
            told = quoted_uid(held) if held else "missing"
            raise DataSetMismatchError(
                f"{keyword} in the data set is {told}, in the command {command}; both must be the same"
            )
    uids = []
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        held = header[keyword]
        if not held:
            raise CannotUnderstandError(f"{keyword} is missing in {received.sop_instance_uid}; {_COMMENT}")
        uids.append(check_uid(held, keyword))
    return uids[0], uids[1]
