"""The data sets of procedure steps: what a new one must have, what one says. Pure.

Patient attributes pass through; no message quotes a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from io import BytesIO

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.domain import procedure_steps as ups
from dicom_node.domain import urgency
from dicom_node.domain.errors import InvalidIdentifierError, StepRefusedError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.performing import Output
from dicom_node.domain.procedure_steps import Step
from dicom_node.domain.sop_classes import UPS_PUSH
from dicom_node.domain.types import Instance

_REQUIRED = (
    *("ScheduledProcedureStepPriority", "ProcedureStepLabel", "WorklistLabel"),
    *("ScheduledWorkitemCodeSequence", "ScheduledProcedureStepStartDateTime", "InputReadinessState"),
    "ProcedureStepState",
)
"""Type 1 of N-CREATE (PS3.4 table CC.2.5-3)."""
_PRIORITIES = ("HIGH", "MEDIUM", "LOW")
_READINESS = ("INCOMPLETE", "UNAVAILABLE", "READY")
_DATE_TIME = re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?\Z")
OF_PATIENT = (
    "SpecificCharacterSet",
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
)
COMPUTER_AIDED_DETECTION = ("110004", "DCM", "Computer Aided Detection")
_EQUIPMENT_FAILURE = ("110501", "DCM", "Equipment failure")
_UNSPECIFIED = ("110513", "DCM", "Discontinued for unspecified reason")
"""CID 9300."""


def check_new(asked: Dataset, codes: Sequence[str]) -> str:
    """Return the Study Instance UID that a new step is about.

    Parameters
    ----------
    codes
        Work item codes that this node performs, each "value^scheme".

    Raises
    ------
    StepRefusedError
        If it lacks what PS3.4 table CC.2.5-3 requires, or is no work of this node.
    """
    for keyword in _REQUIRED:
        if keyword not in asked:
            raise StepRefusedError(ups.MISSING_ATTRIBUTE, f"{keyword} is not there")
        if not asked[keyword].value:
            raise StepRefusedError(ups.MISSING_VALUE, f"{keyword} is empty")
    if str(asked.ProcedureStepState) != ups.SCHEDULED:
        raise StepRefusedError(ups.NOT_CREATED_SCHEDULED, "the state of a new step is SCHEDULED")
    if str(asked.get("TransactionUID") or ""):
        raise StepRefusedError(ups.INVALID_VALUE, "a new step has no Transaction UID")
    if str(asked.ScheduledProcedureStepPriority) not in _PRIORITIES:
        raise StepRefusedError(ups.INVALID_VALUE, "the priority is none of HIGH, MEDIUM, LOW")
    if str(asked.InputReadinessState) not in _READINESS:
        raise StepRefusedError(ups.INVALID_VALUE, "the input readiness is none of the standard's")
    if not _DATE_TIME.match(str(asked.ScheduledProcedureStepStartDateTime)):
        raise StepRefusedError(ups.INVALID_VALUE, "the start is no date and time")
    if not any(_code(item) in codes for item in _items(asked, "ScheduledWorkitemCodeSequence")):
        raise StepRefusedError(ups.INVALID_VALUE, f"the work item code is none of {', '.join(codes)}")
    studies = {str(one.get("StudyInstanceUID") or "") for one in _items(asked, "InputInformationSequence")}
    studies = (studies | {str(asked.get("StudyInstanceUID") or "")}) - {""}
    if not studies:
        raise StepRefusedError(ups.MISSING_ATTRIBUTE, "neither it nor its Input Information names a study")
    if len(studies) > 1:
        raise StepRefusedError(ups.INVALID_VALUE, "it is about several studies; make a step for each")
    try:
        return check_uid(studies.pop(), "Study Instance UID")
    except InvalidIdentifierError as error:
        raise StepRefusedError(ups.INVALID_VALUE, str(error)) from error


def retrieve_titles(asked: Dataset) -> list[str]:
    """Return the AE titles that a step's input may be retrieved from."""
    return [
        str(way.get("RetrieveAETitle") or "").strip()
        for one in _items(asked, "InputInformationSequence")
        for way in _items(one, "DICOMRetrievalSequence")
    ]


def priority_of(asked: Dataset) -> int:
    """Return the queue's priority for a Scheduled Procedure Step Priority."""
    return urgency.stated(str(asked.get("ScheduledProcedureStepPriority") or ""))


def patient(header: Dataset) -> Dataset:
    """Return whom a step is about that the node made itself, as the header of an image has it."""
    ds = Dataset()
    for keyword in OF_PATIENT:
        if keyword in header:
            ds[keyword] = header[keyword]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        if keyword not in ds:
            setattr(ds, keyword, "")
    return ds


def own(step: Step, header: Dataset, held: Sequence[Instance], worklist: str) -> Dataset:
    """Return what a step says that the node made itself: the patient as the first image has it, the images as input."""
    ds = patient(header)
    ds.ScheduledProcedureStepPriority = (
        "HIGH" if step.priority <= urgency.HIGH else "LOW" if step.priority >= urgency.LOW else "MEDIUM"
    )
    ds.ProcedureStepLabel = "Chest X-ray analysis"
    ds.WorklistLabel = worklist
    ds.ScheduledProcessingParametersSequence = []
    ds.ScheduledStationNameCodeSequence = []
    ds.ScheduledWorkitemCodeSequence = [_coded(COMPUTER_AIDED_DETECTION)]
    ds.ScheduledProcedureStepStartDateTime = moment(step.created_at)
    ds.InputReadinessState = "READY"
    ds.StudyInstanceUID = step.study_instance_uid
    ds.ReferencedRequestSequence = []
    series: dict[str, list[tuple[str, str]]] = {}
    for one in held:
        series.setdefault(one.series_instance_uid, []).append((one.sop_class_uid, one.sop_instance_uid))
    ds.InputInformationSequence = [_reference(step.study_instance_uid, *one) for one in series.items()]
    return ds


def completed(base: Dataset, step: Step, made: Iterable[Output], station: str, *, ready: bool) -> Dataset:
    """Return what a step says now: what it was created with, and where the node is with it.

    Parameters
    ----------
    made
        Objects that came out of it.
    station
        This node: it is to perform a step whose input is here, unless the creator named somebody.
    ready
        Whether its input is here.
    """
    ds = Dataset()
    ds.update(base)
    ds.SOPClassUID, ds.SOPInstanceUID = UPS_PUSH.uid, step.sop_instance_uid
    ds.StudyInstanceUID = step.study_instance_uid
    ds.ProcedureStepState = step.state
    ds.ScheduledProcedureStepModificationDateTime = moment(step.updated_at)
    if ready:
        ds.InputReadinessState = "READY"
        if not assigned(base):
            ds.ScheduledStationNameCodeSequence = [_station(station)]
    ds.ProcedureStepProgressInformationSequence = []
    ds.UnifiedProcedureStepPerformedProcedureSequence = []
    if step.state != ups.SCHEDULED:
        ds.ProcedureStepProgressInformationSequence = [_progress(step)]
        ds.UnifiedProcedureStepPerformedProcedureSequence = [_performed(step, made, station)]
    return ds


def assigned(ds: Dataset) -> bool:
    """Return whether a step says who is to perform it."""
    return bool(
        _items(ds, "ScheduledStationNameCodeSequence") or _items(ds, "ScheduledHumanPerformersSequence")
    )


def progress(percent: int, description: str) -> Dataset:
    """Return an item of Procedure Step Progress Information Sequence."""
    ds = Dataset()
    ds.ProcedureStepProgress = str(percent)
    ds.ProcedureStepProgressDescription = description
    return ds


def _progress(step: Step) -> Dataset:
    percent = 100 if step.state == ups.COMPLETED else 0
    ds = progress(percent, ups.progress_description(percent, step.attempts))
    if step.state == ups.CANCELED:
        del ds.ProcedureStepProgressDescription
        ds.ProcedureStepCancellationDateTime = moment(step.ended_at or step.updated_at)
        ds.ReasonForCancellation = step.reason[:1024] or "canceled"
        ds.ProcedureStepDiscontinuationReasonCodeSequence = [discontinued(step.reason)]
    return ds


def _performed(step: Step, made: Iterable[Output], station: str) -> Dataset:
    done = Dataset()
    if step.started_at:
        done.PerformedProcedureStepStartDateTime = moment(step.started_at)
    if step.ended_at:
        done.PerformedProcedureStepEndDateTime = moment(step.ended_at)
    done.PerformedStationNameCodeSequence = [_station(station)]
    done.PerformedWorkitemCodeSequence = [_coded(COMPUTER_AIDED_DETECTION)]
    done.OutputInformationSequence = [_output(one) for one in made]
    return done


def _output(one: Output) -> Dataset:
    """Return one object and where it can be had (PS3.3 table 10-3b)."""
    item = _reference(
        one.study_instance_uid, one.series_instance_uid, [(one.sop_class_uid, one.sop_instance_uid)]
    )
    if one.ae_titles:
        place = Dataset()
        place.RetrieveAETitle = list(one.ae_titles)
        item.DICOMRetrievalSequence = [place]
    if one.urls:
        item.WADORSRetrievalSequence = [Dataset() for _ in one.urls]
        for place, url in zip(item.WADORSRetrievalSequence, one.urls, strict=True):
            place.RetrieveURL = url
    return item


def discontinued(reason: str) -> Dataset:
    """Return the coded reason: somebody asked for it, or the analysis failed."""
    return _coded(_UNSPECIFIED if not reason or reason.startswith("cancel") else _EQUIPMENT_FAILURE)


def encoded(asked: Dataset, uid: str) -> bytes:
    """Return the data set of a new step as a Part 10 file."""
    ds = Dataset()
    ds.update(asked)
    ds.SOPClassUID, ds.SOPInstanceUID = UPS_PUSH.uid, uid
    return filed(ds, uid)


def filed(said: Dataset, uid: str) -> bytes:
    """Return what a peer said as a Part 10 file of that UID: the bytes of no two are the same."""
    ds = Dataset()
    ds.update(said)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = UID(UPS_PUSH.uid)
    ds.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def moment(at: datetime) -> str:
    """Return a moment as VR DT, in UTC."""
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S+0000")


def _items(ds: Dataset, keyword: str) -> Sequence[Dataset]:
    element = ds.get(Tag(keyword))
    return element.value or () if element is not None and element.VR == "SQ" else ()


def _code(item: Dataset) -> str:
    return f"{item.get('CodeValue') or ''}^{item.get('CodingSchemeDesignator') or ''}"


def _coded(code: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _station(title: str) -> Dataset:
    return _coded((title, "99DICOMNODE", title))


def _reference(study: str, series: str, objects: Sequence[tuple[str, str]]) -> Dataset:
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID, item.SeriesInstanceUID = study, series
    item.ReferencedSOPSequence = []
    for sop_class, sop_instance in objects:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, sop_instance
        item.ReferencedSOPSequence.append(one)
    return item
