"""Takes custody of what a peer sent: on return the bytes are on the disk and the row is committed.

Owns the order file -> row -> Success. Reads the few header elements that say where an image belongs and
decodes nothing; knows nothing of pynetdicom.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import writing
from dicom_node.domain.errors import CannotUnderstandError, DataSetMismatchError, StoreError
from dicom_node.domain.ids import check_uid, quoted_uid
from dicom_node.domain.types import Ingested, Received
from dicom_node.pipeline.headers import read_header, text_of
from dicom_node.store import instances, reports
from dicom_node.store.files import FileStore

log = logging.getLogger(__name__)

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
    stored
        Told of each object that was taken in, with its Study Instance UID.
    """

    def __init__(
        self,
        engine: Engine,
        files: FileStore,
        device_uid: str,
        clock: Callable[[], datetime],
        stored: Callable[[Received, str, Ingested], None] = lambda _received, _study, _ingested: None,
    ) -> None:
        self._stored = stored
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
        study_instance_uid, series_instance_uid, device_uid = identify(received)
        if device_uid == self._device_uid:
            return self._own(received, study_instance_uid)
        digest, size = self._files.digest(received.path, received.dataset_offset)
        self._files.adopt(received.path, digest)
        with writing(self._engine) as conn:
            ingested = instances.add(
                conn,
                received,
                study_instance_uid=study_instance_uid,
                series_instance_uid=series_instance_uid,
                digest=digest,
                size=size,
                at=self._clock(),
            )
            # Files whose time is over are removed while their rows are locked, as this one is now.
            self._files.require_instance(digest)
        log.info(
            "image kept",
            extra={
                "ingested": ingested.value,
                "sop_instance_uid": received.sop_instance_uid,
                "study_instance_uid": study_instance_uid,
                "bytes": size,
            },
        )
        self._stored(received, study_instance_uid, ingested)
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


def identify(received: Received) -> tuple[str, str, str]:
    """Return Study and Series Instance UID of a staged file, and the Device UID of what made it, "" where it has none.

    Raises
    ------
    CannotUnderstandError, DataSetMismatchError, InvalidIdentifierError, StoreError
        As `Ingest`.
    """
    try:
        header = read_header(received.path)
    except OSError as error:
        raise StoreError(f"{received.path.name} cannot be read: {error.strerror or error}") from error
    for keyword, command in (
        ("SOPClassUID", received.sop_class_uid),
        ("SOPInstanceUID", received.sop_instance_uid),
    ):
        held = text_of(header, keyword)
        if held != command:
            told = quoted_uid(held) if held else "missing"
            raise DataSetMismatchError(
                f"{keyword} in the data set is {told}, in the command {command}; both must be the same"
            )
    uids = []
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        held = text_of(header, keyword)
        if not held:
            raise CannotUnderstandError(f"{keyword} is missing in {received.sop_instance_uid}; {_COMMENT}")
        uids.append(check_uid(held, keyword))
    return uids[0], uids[1], text_of(header, "DeviceUID")
