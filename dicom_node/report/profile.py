"""The same report for archives that take less: cut to what a simpler SR IOD allows. Pure.

Owns what each IOD leaves out (PS3.3 tables A.35.1-2, A.35.2-2, A.35.3-2). Works on the bytes of a finished report, so
that a cut document is a function of the one it is cut from, and knows nothing of scores. Our tree uses no 3D
coordinates and no references inside the document: Comprehensive and Enhanced SR take it as it is. Basic Text SR has
neither numbers nor coordinates: a number becomes a text, an outline a sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from dicom_node.domain.errors import ReportError
from dicom_node.domain.types import Report
from dicom_node.report import uids
from dicom_node.report.encoding import encode

CLASSES = (
    str(Comprehensive3DSRStorage),
    str(ComprehensiveSRStorage),
    str(EnhancedSRStorage),
    str(BasicTextSRStorage),
)
"""SOP Classes a report can be sent as, the richest first."""


def cut_uid(sop_instance_uid: str, sop_class_uid: str) -> str:
    """Return the SOP Instance UID of a report in another SOP Class; its own in the richest one."""
    if sop_class_uid == CLASSES[0]:
        return sop_instance_uid
    return uids.derived(sop_instance_uid, "cut", sop_class_uid)


def cut(content: bytes, sop_class_uid: str) -> Report:
    """Return a report as a document of another SOP Class: the same tree, without what its IOD forbids.

    Documents that it supersedes are named as they are in that class, since an archive that takes this class has
    got the earlier ones in it too.

    Parameters
    ----------
    content
        Part 10 bytes of a report that `sr.build` made.
    sop_class_uid
        One of `CLASSES`; the first returns the report unchanged.

    Raises
    ------
    ReportError
        If the class is no other than those, or the bytes are no report of the richest class.
    """
    if sop_class_uid not in CLASSES:
        raise ReportError(f"SOP Class {sop_class_uid} is no class of reports; one of {', '.join(CLASSES)} is")
    ds = dcmread(BytesIO(content))
    if ds.get("SOPClassUID") != CLASSES[0] or "ContentSequence" not in ds:
        raise ReportError(
            f"object {ds.get('SOPInstanceUID', '?')} is no Comprehensive 3D SR; only such a report can be cut"
        )
    if sop_class_uid != CLASSES[0]:
        ds.SOPInstanceUID = cut_uid(str(ds.SOPInstanceUID), sop_class_uid)
        ds.SOPClassUID = sop_class_uid
        _rename_predecessors(ds, sop_class_uid)
        if sop_class_uid == CLASSES[-1]:
            _cut_children(ds)
        content = encode(Dataset(ds), _character_set(ds))
    return Report(
        sop_class_uid,
        str(ds.SOPInstanceUID),
        str(ds.SeriesInstanceUID),
        str(ds.StudyInstanceUID),
        content,
    )


def _character_set(ds: Dataset) -> str:
    return "ISO_IR 192" if ds.get("SpecificCharacterSet") == "ISO_IR 192" else "ISO_IR 6"


def _rename_predecessors(ds: Dataset, sop_class_uid: str) -> None:
    for study in ds.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for reference in series.ReferencedSOPSequence:
                if reference.ReferencedSOPClassUID == CLASSES[0]:
                    reference.ReferencedSOPInstanceUID = cut_uid(
                        str(reference.ReferencedSOPInstanceUID), sop_class_uid
                    )
                    reference.ReferencedSOPClassUID = sop_class_uid


def _cut_children(item: Dataset) -> None:
    """Leave below an item what Basic Text SR allows there (PS3.3 table A.35.1-2)."""
    if "ContentSequence" not in item:
        return
    children = [kept for child in item.ContentSequence for kept in _kept(child)]
    if children:
        item.ContentSequence = children
    else:
        del item.ContentSequence


def _kept(item: Dataset) -> Iterator[Dataset]:
    if item.ValueType == "NUM":
        _to_text(item, _number(item), "MeasuredValueSequence", "NumericValueQualifierCodeSequence")
    elif item.ValueType == "SCOORD":
        points = len(item.GraphicData) // 2
        _to_text(item, f"{item.GraphicType} of {points} points, not shown", "GraphicType", "GraphicData")
        del item[_CONTENT]  # the image it was selected from: a text selects from nothing
    _cut_children(item)
    yield item


_CONTENT = "ContentSequence"


def _to_text(item: Dataset, text: str, *without: str) -> None:
    for keyword in without:
        if keyword in item:
            del item[keyword]
    item.ValueType = "TEXT"
    item.TextValue = text


def _number(item: Dataset) -> str:
    if not item.get("MeasuredValueSequence"):
        return "none"
    measured = item.MeasuredValueSequence[0]
    unit = measured.MeasurementUnitsCodeSequence[0]
    value = f"{float(measured.get('FloatingPointValue', measured.NumericValue)):.6g}"
    return value if unit.CodeValue == "1" else f"{value} {str(unit.CodeValue).strip('{}')}"
