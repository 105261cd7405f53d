"""The report: a Comprehensive 3D SR of TID 1500 made from a result. Pure: its bytes follow from the arguments.

Owns the document's header (PS3.3 section A.35.13). The content tree is `tree`'s, what is
copied from the images `header`'s. The header is written here and not by highdicom's SOP classes, which take
dates from the clock and refuse images of classes that they do not know.

Time: ContentDate, ContentTime and the creation stamps are local time. Where the images state a Timezone
Offset From UTC, it is kept, since StudyTime was written in it, and our stamps are converted to it; where they
do not, our stamps are in the zone of `at` and no offset is stated, since it would also speak for StudyTime. The
root's Observation DateTime always carries its own offset.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.domain.types import Report, StudyResult
from dicom_node.report import codes, tree, uids, values
from dicom_node.report.consistency import check
from dicom_node.report.encoding import encode
from dicom_node.report.header import COPIED, normalise, raw_value


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a report says of the node: the device observer and the General Equipment module.

    `device_uid` is the node's own UID, from which it derives all others; `software_version` changes the series.
    """

    device_uid: str
    manufacturer: str
    model_name: str
    serial_number: str
    software_version: str
    institution_name: str = ""
    ae_title: str = ""
    series_description: str = ""


class Reference(Protocol):
    """The identifiers of a stored object; a `Report` has them."""

    @property
    def sop_class_uid(self) -> str: ...  # noqa: D102
    @property
    def sop_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def series_instance_uid(self) -> str: ...  # noqa: D102
    @property
    def study_instance_uid(self) -> str: ...  # noqa: D102


def build(
    result: StudyResult,
    sources: Sequence[Dataset],
    equipment: Equipment,
    at: datetime,
    predecessors: Sequence[Reference] = (),
) -> Report:
    """Return the report on a study.

    Parameters
    ----------
    result
        The answer to one revision of the study; every image that was looked at is in it.
    sources
        Headers of `result.images`, in the same order, as read. An unusable one may be an empty data set.
    equipment
        This node.
    at
        When the analysis was made; timezone-aware.
    predecessors
        Reports on earlier revisions, which this one supersedes.

    Raises
    ------
    ReportError
        If result and sources are not of one study and of the same images, if a score has no provenance or is
        not a number, or if verdict and scores contradict each other.
    """
    check(result, sources, at)
    headers, notes = _normalised(sources)
    patient, remarks = _patient(result, headers)
    fit = _fitter(patient)
    ds = Dataset()
    _copy(patient, ds)
    moment = _stamp(ds, at)
    _document(ds, result, equipment, fit, _banks(result))
    for name in ("ContentDate", "InstanceCreationDate"):
        setattr(ds, name, moment.strftime("%Y%m%d"))
    for name in ("ContentTime", "InstanceCreationTime"):
        setattr(ds, name, moment.strftime("%H%M%S"))
    evidence = _references(
        (result.study_instance_uid, i.series_instance_uid, i.sop_class_uid, i.sop_instance_uid)
        for i in result.images
    )
    if evidence:
        ds.CurrentRequestedProcedureEvidenceSequence = evidence
    if predecessors:
        ds.PredecessorDocumentsSequence = _references(
            (p.study_instance_uid, p.series_instance_uid, p.sop_class_uid, p.sop_instance_uid)
            for p in predecessors
        )
    observer = tree.Observer(
        equipment.device_uid,
        fit(equipment.ae_title or equipment.model_name or "dicom_node"),
        ds.Manufacturer,
        ds.ManufacturerModelName,
        ds.DeviceSerialNumber,
    )
    root = tree.content(result, headers, observer, fit, remarks)
    for element in root:
        ds[element.tag] = element
    ds.ObservationDateTime = moment.strftime("%Y%m%d%H%M%S.%f%z")
    return Report(
        str(ds.SOPClassUID),
        str(ds.SOPInstanceUID),
        str(ds.SeriesInstanceUID),
        str(ds.StudyInstanceUID),
        encode(ds, "ISO_IR 192" if _is_unicode(patient) else "ISO_IR 6"),
        (*notes, *remarks),
    )


def _banks(result: StudyResult) -> str:
    """Return the hashes of the banks that measured the image which decides: part of the report's identity."""
    if result.decisive is None or result.provenance is None:
        return ""
    also = [measured.provenance for measured in result.images[result.decisive].also]
    return "+".join(made_by.bank_hash for made_by in (result.provenance, *also))


def _normalised(sources: Sequence[Dataset]) -> tuple[list[Dataset], list[str]]:
    headers: list[Dataset] = []
    notes: list[str] = []
    for index, source in enumerate(sources):
        header, changed = normalise(source)
        headers.append(header)
        notes += [f"image {index + 1}: {note}" for note in changed]
    return headers, notes


def _patient(result: StudyResult, headers: Sequence[Dataset]) -> tuple[Dataset, list[str]]:
    """Return the header whose patient and study the report copies, and what a person should know of it."""
    if not headers:
        return normalise(Dataset())[0], []
    known = [header for header in headers if raw_value(header, "PatientID") or raw_value(header, "PatientName")]
    chosen = known[0] if known else headers[0]
    if result.decisive is not None and headers[result.decisive] in known:
        chosen = headers[result.decisive]
    ids = {(raw_value(header, "PatientID") or b"").strip() for header in known} - {b""}
    remark = "The images of this study do not agree on the Patient ID; check to whom they belong."
    return chosen, [remark] if len(ids) > 1 else []


def _copy(patient: Dataset, ds: Dataset) -> None:
    for keyword in ("SpecificCharacterSet", *COPIED):
        element = patient.get_item(keyword)
        if element is not None:
            ds[element.tag] = element


def _stamp(ds: Dataset, at: datetime) -> datetime:
    if "TimezoneOffsetFromUTC" not in ds:
        return at
    text = (raw_value(ds, "TimezoneOffsetFromUTC") or b"").decode().strip()
    minutes = int(text[1:3]) * 60 + int(text[3:5])
    zone = timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    return at.astimezone(zone)


def _document(
    ds: Dataset, result: StudyResult, equipment: Equipment, fit: Callable[[str], str], bank_hash: str
) -> None:
    long = [
        _long_string(fit, text) or "unknown"
        for text in (
            equipment.manufacturer,
            equipment.model_name,
            equipment.serial_number,
            equipment.software_version,
        )
    ]
    ds.Manufacturer, ds.ManufacturerModelName, ds.DeviceSerialNumber, ds.SoftwareVersions = long
    institution = _long_string(fit, equipment.institution_name)
    if institution:
        ds.InstitutionName = institution
    description = _long_string(fit, equipment.series_description)
    if description:
        ds.SeriesDescription = description
    ds.SOPClassUID = Comprehensive3DSRStorage
    ds.SOPInstanceUID = uids.report_uid(
        equipment.device_uid, result.study_instance_uid, result.revision, bank_hash, result.verdict
    )
    ds.StudyInstanceUID = result.study_instance_uid
    ds.SeriesInstanceUID = uids.series_uid(
        equipment.device_uid, result.study_instance_uid, *long, institution, description
    )
    ds.Modality = "SR"
    ds.SeriesNumber = 1
    ds.InstanceNumber = max(result.revision, 1)
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CodingSchemeIdentificationSequence = [codes.scheme_identification()]


def _references(objects: Iterable[tuple[str, str, str, str]]) -> list[Dataset]:
    studies: dict[str, dict[str, dict[str, str]]] = {}
    for study, series, sop_class, sop_instance in objects:
        studies.setdefault(study, {}).setdefault(series, {})[sop_instance] = sop_class
    items = []
    for study, by_series in studies.items():
        item = Dataset()
        item.StudyInstanceUID = study
        item.ReferencedSeriesSequence = []
        for series, instances in by_series.items():
            inner = Dataset()
            inner.SeriesInstanceUID = series
            inner.ReferencedSOPSequence = []
            for sop_instance, sop_class in instances.items():
                reference = Dataset()
                reference.ReferencedSOPClassUID = sop_class
                reference.ReferencedSOPInstanceUID = sop_instance
                inner.ReferencedSOPSequence.append(reference)
            item.ReferencedSeriesSequence.append(inner)
        items.append(item)
    return items


def _is_unicode(patient: Dataset) -> bool:
    return values.character_sets(raw_value(patient, "SpecificCharacterSet") or b"")[0] == ("ISO_IR 192",)


def _fitter(patient: Dataset) -> Callable[[str], str]:
    """Return what makes a text legal in the report's character set: ASCII wherever that set may differ."""
    unicode = _is_unicode(patient)

    def fit(text: str) -> str:
        clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).strip()
        if not unicode:
            clean = unicodedata.normalize("NFKD", clean)
            clean = "".join(c for c in clean if not unicodedata.combining(c))
            clean = clean.encode("ascii", "replace").decode("ascii")
        return clean or "-"

    return fit


def _long_string(fit: Callable[[str], str], text: str) -> str:
    return fit(text).replace("\\", "/")[:64].strip() if text.strip() else ""
