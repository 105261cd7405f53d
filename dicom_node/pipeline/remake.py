"""Makes a report's bytes a second time from what is held, where the first ones were lost."""

from __future__ import annotations

from pydantic import TypeAdapter
from pydicom import Dataset
from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import CannotUnderstandError, NotFoundError
from dicom_node.domain.types import StudyResult
from dicom_node.pipeline.headers import read_header
from dicom_node.report import sr
from dicom_node.store import instances, reports, studies
from dicom_node.store.files import FileStore

_RESULT = TypeAdapter(StudyResult)


def remake(
    engine: Engine, files: FileStore, equipment: sr.Equipment, study_instance_uid: str, revision: int
) -> bytes:
    """Return the bytes of a revision's report as they come out now.

    A report is a function of its result, the images' headers, the equipment and the earlier reports. If one of
    these has changed since, so have the bytes: compare their digest.

    Raises
    ------
    NotFoundError
        If there is no such report, or the revision has no image any more.
    ReportError
        If no report can be built from what is held.
    """
    with reading(engine) as conn:
        stored = reports.get(conn, study_instance_uid, revision)
        closed_at = studies.revision_closed_at(conn, study_instance_uid, revision)
        held = instances.of_revision(conn, files, study_instance_uid, revision) or instances.of_revision(
            conn, files, study_instance_uid, revision, conflicts=True
        )
        earlier = reports.of_study(conn, study_instance_uid, before_revision=revision)
        procedure = studies.procedure_of(conn, study_instance_uid, revision)
    if stored is None or closed_at is None or not held:
        raise NotFoundError(
            f"revision {revision} of study {study_instance_uid} has no report, or no image any more"
        )
    headers = []
    for instance in held:
        try:
            headers.append(read_header(instance.path))
        except (CannotUnderstandError, OSError):
            headers.append(Dataset())
    result = _RESULT.validate_python(dict(stored.result))
    return sr.build(result, headers, equipment, closed_at, earlier, procedure).content
