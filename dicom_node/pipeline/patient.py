"""The Patient ID of a study, for the audit trail of a site that wants it there. Nobody else asks for it."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import NodeError
from dicom_node.pipeline.headers import READ_ERRORS, read_header
from dicom_node.store import instances, studies
from dicom_node.store.files import FileStore


def patient_id(engine: Engine, files: FileStore, study_instance_uid: str) -> str:
    """Return the Patient ID that an image of the study states; "" where none does that is held and can be read.

    Raises
    ------
    DatabaseError
        If the database is away.
    """
    with reading(engine) as conn:
        newest = studies.latest_revision(conn, study_instance_uid)
        held = instances.of_revision(conn, files, study_instance_uid, newest or 0)
    for image in held:
        with suppress(NodeError, *READ_ERRORS):
            if stated := str(read_header(image.path).get("PatientID", "") or ""):
                return stated
    return ""
