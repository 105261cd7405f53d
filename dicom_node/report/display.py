"""Objects to look at, beside the report: what all of them have in common. Pure.

Owns their series, UIDs and the reference to the image; each kind has a file of its own (`capture`, `presentation`,
`key_objects`, `segmentation`). All are functions of the report that they belong to: a retry makes the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from dicom_node.domain.types import Report
from dicom_node.report import uids
from dicom_node.report.document import (
    Equipment,
    copy_patient,
    describe_equipment,
    local_moment,
    long_string,
    stamp_content,
)
from dicom_node.report.encoding import encode
from dicom_node.report.header import normalise
from dicom_node.report.repertoire import fitter, is_unicode

NOTICE = "RESEARCH, NOT FOR DIAGNOSIS"
LABEL = "UNUSUAL REGION"
DESCRIPTION = "Largest area that lies far from this site's normal chests"


@dataclass(frozen=True, slots=True)
class Source:
    """An image that an object shows.

    Attributes
    ----------
    header
        As read; may be of any quality.
    series_instance_uid, sop_class_uid, sop_instance_uid
        Of the image, as the node keeps them.
    """

    header: Dataset
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Begun:
    """An object whose head is written: patient, study, series, equipment, identity, moment."""

    ds: Dataset
    fit: Callable[[str], str]

    def finish(self) -> Report:
        """Return the object with its bytes."""
        ds = self.ds
        content = encode(ds, "ISO_IR 192" if is_unicode(ds) else "ISO_IR 6")
        return Report(
            str(ds.SOPClassUID),
            str(ds.SOPInstanceUID),
            str(ds.SeriesInstanceUID),
            str(ds.StudyInstanceUID),
            content,
        )


def begin(
    report: Report,
    source: Source,
    equipment: Equipment,
    at: datetime,
    *,
    kind: str,
    sop_class_uid: str,
    modality: str,
    series_number: int,
    series_description: str,
    number: int = 1,
) -> Begun:
    """Write what every object has, and return it.

    Parameters
    ----------
    report
        The report it belongs to: its UIDs follow from that report's and from the image's.
    source
        The image; patient and study are copied from it.
    at
        When the analysis was made; timezone-aware.
    kind
        Kind of object; objects of one kind share a series within a study.
    number
        Of the object in its series.
    """
    header, _ = normalise(source.header)
    fit = fitter(header)
    ds = Dataset()
    copy_patient(header, ds)
    moment = local_moment(ds, at)
    described = describe_equipment(ds, equipment, fit)
    ds.SeriesDescription = long_string(fit, series_description)
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = uids.derived(
        equipment.device_uid, kind, report.sop_instance_uid, source.sop_instance_uid
    )
    ds.StudyInstanceUID = report.study_instance_uid
    ds.SeriesInstanceUID = uids.series_uid(equipment.device_uid, report.study_instance_uid, *described, kind)
    ds.Modality = modality
    ds.SeriesNumber = series_number
    ds.InstanceNumber = number
    stamp_content(ds, moment)
    ds.SeriesDate, ds.SeriesTime = ds.ContentDate, ds.ContentTime
    return Begun(ds, fit)


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """Return an SOP Instance Reference (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = sop_class_uid
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def coded(code: Code) -> Dataset:
    """Return a code as the item of a code sequence (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue = code.value
    item.CodingSchemeDesignator = code.scheme_designator
    item.CodeMeaning = code.meaning
    return item
