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

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.domain.types import Report, StudyResult
from dicom_node.report import codes, tree, uids
from dicom_node.report.consistency import check
from dicom_node.report.document import (
    Equipment,
    copy_patient,
    describe_equipment,
    local_moment,
    normalised,
    references,
    stamp_content,
)
from dicom_node.report.encoding import encode
from dicom_node.report.header import normalise, raw_value
from dicom_node.report.repertoire import fitter, terms_of, written
from dicom_node.report.sentence import ENGLISH, sentence

__all__ = ["Equipment", "Reference", "build"]


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
    procedure: tuple[str, str, str] | None = None,
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
    procedure
        What was asked for: code value, coding scheme, meaning. None, or one that breaks the syntax of a code, leaves it
        at an X-ray of no stated region.

    Raises
    ------
    ReportError
        If result and sources are not of one study and of the same images, if a score has no provenance or is
        not a number, or if verdict and scores contradict each other.
    """
    check(result, sources, at)
    headers, notes = normalised(sources)
    patient, remarks = _patient(result, headers)
    fit = fitter(patient)
    ds = Dataset()
    copy_patient(patient, ds)
    moment = local_moment(ds, at)
    _document(ds, result, equipment, fit, _banks(result))
    stamp_content(ds, moment)
    evidence = references(
        (result.study_instance_uid, i.series_instance_uid, i.sop_class_uid, i.sop_instance_uid)
        for i in result.images
    )
    if evidence:
        ds.CurrentRequestedProcedureEvidenceSequence = evidence
    if predecessors:
        ds.PredecessorDocumentsSequence = references(
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
    terms = terms_of(patient)
    spoken = _spoken(result, equipment.language, terms)
    asked = tree.reported(procedure, fit)
    root = tree.content(result, headers, observer, fit, remarks, notes, spoken, asked)
    for element in root:
        ds[element.tag] = element
    ds.ObservationDateTime = moment.strftime("%Y%m%d%H%M%S.%f%z")
    return Report(
        str(ds.SOPClassUID),
        str(ds.SOPInstanceUID),
        str(ds.SeriesInstanceUID),
        str(ds.StudyInstanceUID),
        encode(
            ds,
            terms
            if spoken and not spoken[1].isascii()
            else "ISO_IR 192"
            if terms == ("ISO_IR 192",)
            else "ISO_IR 6",
        ),
        (*notes, *remarks),
    )


def _spoken(result: StudyResult, language: str, terms: tuple[str, ...]) -> tuple[str, str] | None:
    """Return the site's language and the sentence in it; None for English, or where it cannot be written."""
    if language == ENGLISH:
        return None
    text = written(sentence(result, language), terms)
    return None if text is None else (language, text)


def _banks(result: StudyResult) -> str:
    """Return the hashes of the banks that measured the image which decides: part of the report's identity."""
    if result.decisive is None or result.provenance is None:
        return ""
    also = [measured.provenance for measured in result.images[result.decisive].also]
    return "+".join(made_by.bank_hash for made_by in (result.provenance, *also))


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


def _document(
    ds: Dataset, result: StudyResult, equipment: Equipment, fit: Callable[[str], str], bank_hash: str
) -> None:
    described = describe_equipment(ds, equipment, fit)
    ds.SOPClassUID = Comprehensive3DSRStorage
    ds.SOPInstanceUID = uids.report_uid(
        equipment.device_uid, result.study_instance_uid, result.revision, bank_hash, result.verdict
    )
    ds.StudyInstanceUID = result.study_instance_uid
    ds.SeriesInstanceUID = uids.series_uid(equipment.device_uid, result.study_instance_uid, *described)
    ds.Modality = "SR"
    ds.SeriesNumber = 1
    ds.InstanceNumber = max(result.revision, 1)
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CodingSchemeIdentificationSequence = [codes.scheme_identification()]
