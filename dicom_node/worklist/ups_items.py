"""Procedure steps as data sets: what is asked, read and told (PS3.4 Table CC.2.5-3). Pure; keeps no patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_ae_title
from dicom_node.domain.performing import Code, Output, Performed, Step, UpsSource
from dicom_node.worklist import found

MOST_CODES, MOST_INPUTS, MOST_REFERENCES = 20, 200, 2000
_STATE = re.compile(r"[A-Z ]{1,16}\Z")
_CODE = re.compile(r"[^\\\x00-\x1f]{1,16}\Z")

_READ = (
    "SpecificCharacterSet",
    "ProcedureStepState",
    "ScheduledProcedureStepPriority",
    "InputReadinessState",
    "ScheduledWorkitemCodeSequence",
    "ScheduledStationNameCodeSequence",
    "ScheduledStationClassCodeSequence",
    "InputInformationSequence",
)
WANTED = [Tag(keyword) for keyword in _READ]
"""Attributes that are asked for: none of them is of the patient."""


def query(source: UpsSource) -> Dataset:
    """Return the query for scheduled steps; what is ours is decided here, not there."""
    keys = Dataset()
    keys.SOPClassUID = ""
    keys.SOPInstanceUID = ""
    keys.ProcedureStepState = "SCHEDULED"
    keys.ScheduledProcedureStepPriority = ""
    keys.InputReadinessState = ""
    keys.ScheduledWorkitemCodeSequence = [_code_key(source.work_items)]
    keys.ScheduledStationNameCodeSequence = [_code_key(())]
    keys.ScheduledStationClassCodeSequence = [_code_key(())]
    return keys


def subscription(source: UpsSource) -> Dataset:
    """Return the keys of a filtered subscription (PS3.4 section CC.2.3.1)."""
    keys = Dataset()
    if len(source.work_items) == 1:
        keys.ScheduledWorkitemCodeSequence = [_code_key(source.work_items)]
    return keys


def _code_key(values: tuple[str, ...]) -> Dataset:
    key = Dataset()
    key.CodeValue = values[0] if len(values) == 1 else ""
    key.CodingSchemeDesignator = ""
    key.CodeMeaning = ""
    return key


def step(ds: Dataset, sop_instance_uid: str = "") -> Step | None:
    """Return what a provider tells of a step; None where it cannot be read."""
    try:
        uid = sop_instance_uid or found.uid(ds.get("SOPInstanceUID"))
        state = str(ds.get("ProcedureStepState") or "").strip()
        if not uid or not _STATE.match(state):
            return None
        study, series, instances, titles, fault = _inputs(ds)
        return Step(
            uid,
            state,
            str(ds.get("ScheduledProcedureStepPriority") or "").strip()[:16],
            str(ds.get("InputReadinessState") or "READY").strip() == "READY",
            tuple(_codes(ds, "ScheduledWorkitemCodeSequence")),
            tuple(code[0] for code in _codes(ds, "ScheduledStationNameCodeSequence")),
            tuple(code[0] for code in _codes(ds, "ScheduledStationClassCodeSequence")),
            study,
            series,
            instances,
            titles,
            fault,
        )
    except found.BROKEN:
        return None


def _items(ds: Dataset, keyword: str, most: int) -> list[Dataset]:
    value = ds.get(keyword)
    return list(value)[:most] if isinstance(value, Sequence) else []


def _codes(ds: Dataset, keyword: str) -> Iterable[Code]:
    for item in _items(ds, keyword, MOST_CODES):
        value = str(item.get("CodeValue") or "").strip()
        scheme = str(item.get("CodingSchemeDesignator") or "").strip()
        if _CODE.match(value) and _CODE.match(scheme):
            yield value, scheme, str(item.get("CodeMeaning") or value)[:64]


def _inputs(ds: Dataset) -> tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], str]:
    """Return study, series, instances, AE titles and what is wrong with the input information."""
    items = _items(ds, "InputInformationSequence", MOST_INPUTS + 1)
    if len(items) > MOST_INPUTS:
        return "", (), (), (), f"its input has more than {MOST_INPUTS} parts"
    studies: dict[str, None] = {}
    series: dict[str, None] = {}
    instances: dict[str, None] = {}
    titles: dict[str, None] = {}
    whole = all_of_it = others = False
    for item in items:
        study = found.uid(item.get("StudyInstanceUID"))
        if study:
            studies[study] = None
        one = found.uid(item.get("SeriesInstanceUID"))
        if one:
            series[one] = None
        else:
            whole = True
        references = _items(item, "ReferencedSOPSequence", MOST_REFERENCES)
        all_of_it |= bool(study) and not references
        for reference in references:
            instance = found.uid(reference.get("ReferencedSOPInstanceUID"))
            sop_class = found.uid(reference.get("ReferencedSOPClassUID"))
            if instance and found.ImageFound(one, instance, sop_class).fetched:
                instances[instance] = None
            elif instance:  # a report, for instance, that never comes here
                others = True
        for place in _items(item, "DICOMRetrievalSequence", MOST_CODES):
            titles.update(dict.fromkeys(_titles(place.get("RetrieveAETitle"))))
    if len(studies) != 1:
        fault = (
            "its input names no study"
            if not studies
            else f"its input names {len(studies)} studies, one is right"
        )
        return "", (), (), tuple(titles), fault
    if others and not (instances or all_of_it):
        return (
            "",
            (),
            (),
            tuple(titles),
            "its input names objects, and none of them is an image that is taken here",
        )
    if len(instances) > MOST_REFERENCES:
        return "", (), (), tuple(titles), f"its input names more than {MOST_REFERENCES} images"
    named = () if all_of_it else tuple(instances)
    return next(iter(studies)), () if whole else tuple(series), named, tuple(titles), ""


def _titles(value: Any) -> list[str]:
    named = [value] if isinstance(value, str) else list(value or [])
    good = []
    for title in named[:MOST_CODES]:
        try:
            good.append(check_ae_title(str(title)))
        except InvalidIdentifierError:
            continue
    return good


def progress(percent: int, description: str) -> Dataset:
    """Return the Procedure Step Progress Information."""
    told = Dataset()
    told.ProcedureStepProgress = str(percent)
    told.ProcedureStepProgressDescription = description[:64]
    return _one("ProcedureStepProgressInformationSequence", told)


def discontinued(at: datetime, reason: Code) -> Dataset:
    """Return why and when a step is canceled: what CANCELED requires (PS3.4 Table CC.2.5-3)."""
    told = Dataset()
    told.ProcedureStepCancellationDateTime = _moment(at)
    told.ReasonForCancellation = reason[2]
    told.ProcedureStepDiscontinuationReasonCodeSequence = [_code(reason)]
    return _one("ProcedureStepProgressInformationSequence", told)


def performed(what: Performed) -> Dataset:
    """Return the Unified Procedure Step Performed Procedure Sequence: what COMPLETED requires."""
    told = Dataset()
    told.PerformedStationNameCodeSequence = [_code(what.station)]
    told.PerformedStationClassCodeSequence = []
    told.PerformedStationGeographicLocationCodeSequence = []
    told.PerformedWorkitemCodeSequence = [_code(code) for code in what.work_items]
    told.PerformedProcedureStepStartDateTime = _moment(what.started_at)
    told.PerformedProcedureStepEndDateTime = _moment(what.ended_at)
    told.OutputInformationSequence = [_output(output) for output in what.outputs]
    changes = _one("UnifiedProcedureStepPerformedProcedureSequence", told)
    if not all("".join(code).isascii() for code in (what.station, *what.work_items)):
        changes.SpecificCharacterSet = "ISO_IR 192"
    changes.update(progress(100, "Report delivered"))
    return changes


def _output(output: Output) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = output.sop_class_uid
    reference.ReferencedSOPInstanceUID = output.sop_instance_uid
    item = Dataset()
    item.TypeOfInstances = "DICOM"
    item.StudyInstanceUID = output.study_instance_uid
    item.SeriesInstanceUID = output.series_instance_uid
    item.ReferencedSOPSequence = [reference]
    if output.ae_titles:
        place = Dataset()
        place.StudyInstanceUID = output.study_instance_uid
        place.SeriesInstanceUID = output.series_instance_uid
        place.RetrieveAETitle = list(output.ae_titles)
        item.DICOMRetrievalSequence = [place]
    if output.urls:
        item.WADORSRetrievalSequence = [_one_url(url) for url in output.urls]
    return item


def _one_url(url: str) -> Dataset:
    place = Dataset()
    place.RetrieveURL = url
    return place


def _one(keyword: str, item: Dataset) -> Dataset:
    changes = Dataset()
    setattr(changes, keyword, [item])
    return changes


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")
