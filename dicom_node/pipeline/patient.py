"""The Patient ID of a study, for the audit trail of a site that wants it there. Nobody else asks for it."""

from __future__ import annotations

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import NodeError
from dicom_node.pipeline.headers import READ_ERRORS, read_header
from dicom_node.store import instances
from dicom_node.store.files import FileStore


def patient_id(engine: Engine, files: FileStore, study_instance_uid: str) -> str:
    """Return the Patient ID that the study's first image states; "" where there is none or it cannot be read.

    Raises
    ------
    DatabaseError
        If the database is away.
    """
    with reading(engine) as conn:
        held = instances.of_revision(conn, files, study_instance_uid, 1)
    if not held:
        return ""
    try:
        return str(read_header(held[0].path).get("PatientID", "") or "")
    except (NodeError, *READ_ERRORS):
        return ""
