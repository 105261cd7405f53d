"""A report as people and programs read it back: `render` as text, `facts` as values. Pure.

Reads any SR's content tree; knows of ours only the codes. It shares nothing with the code that builds reports
beyond `codes`, so that what it finds is what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Any, cast

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_node.domain.errors import ReportError
from dicom_node.report import codes
from dicom_node.report.sentence import IN_ENGLISH

_PLAIN = {
    "TEXT": "TextValue",
    "UIDREF": "UID",
    "DATE": "Date",
    "TIME": "Time",
    "DATETIME": "DateTime",
    "PNAME": "PersonName",
}


def render(report: bytes | Dataset, *, identify: bool = False) -> str:
    """Return a report as indented text, one content item a line, the statements for people first.

    Parameters
    ----------
    report
        An SR document as Part 10 bytes or as a data set.
    identify
        Whether patient name, ID and accession number are shown. Off by default: text tends to end in logs.

    Raises
    ------
    ReportError
        If it is no SR document.
    """
    ds = _document(report)
    title = _meaning(ds.ConceptNameCodeSequence[0])
    lines = [title, "=" * len(title)]
    lines += [_value(item) for item in ds.ContentSequence if _is(item, codes.SUMMARY)]
    lines.append("")
    shown = [
        ("Study", str(ds.get("StudyInstanceUID", ""))),
        ("Document", f"{UID(str(ds.SOPClassUID)).name}, {ds.get('SOPInstanceUID', '')}"),
        ("Made", _moment(ds)),
        ("Made by", _joined(ds, " ", "Manufacturer", "ManufacturerModelName", "SoftwareVersions")),
        ("Status", _joined(ds, ", ", "CompletionFlag", "VerificationFlag", "PreliminaryFlag")),
        ("Supersedes", ", ".join(_predecessors(ds))),
    ]
    if identify:
        shown.insert(0, ("Patient", f"{ds.get('PatientName', '')} ({ds.get('PatientID', '')})"))
        shown.insert(1, ("Accession", str(ds.get("AccessionNumber", ""))))
    lines += [f"{name + ':':<12}{value}" for name, value in shown if value.strip()]
    lines.append("")
    for item in ds.ContentSequence:
        if not _is(item, codes.SUMMARY):
            lines += _lines(item, 0)
    return "\n".join(lines) + "\n"


def facts(report: bytes | Dataset) -> dict[str, Any]:
    """Return what one of our reports says, for programs that judge it.

    Returns
    -------
    dict
        ``verdict`` ("above threshold", ...), ``outcome`` (code value of the CAD summary), ``summary`` (the
        sentence), and of the image with the highest percentile, None where there is no score: ``score``,
        ``percentile`` [0, 100], ``z_score``, ``threshold``, ``above``, ``bank_hash``, ``algorithm``,
        ``parameters`` (dict of text). ``images`` has the same of every image with its
        ``sop_instance_uid`` and ``reason`` ("" where it was scored), and as ``also`` a list of the same
        values of each score that was measured beside it, and ``region`` where one is outlined. ``comments`` are
        remarks on the study, ``notes`` what was changed in the headers. ``summary`` is the English sentence.

    Raises
    ------
    ReportError
        If it is no SR document or none of this program.
    """
    ds = _document(report)
    evaluations = _child(ds, codes.QUALITATIVE_EVALUATIONS)
    verdict = _child(evaluations, codes.VERDICT) if evaluations is not None else None
    outcome = _child(evaluations, codes.OUTCOME) if evaluations is not None else None
    known = {code.value: verdict.value for verdict, code in codes.VERDICTS.items()}
    said = str(verdict.ConceptCodeSequence[0].get("CodeValue", "")) if verdict is not None else ""
    if evaluations is None or outcome is None or said not in known:
        raise ReportError(
            f"SR {ds.get('SOPInstanceUID', '?')} has no result code of {codes.SCHEME}; it is not ours"
        )
    measurements = _child(ds, codes.IMAGING_MEASUREMENTS)
    images = _images(measurements.ContentSequence if measurements is not None else ())
    scored = [image for image in images if image["score"] is not None]
    decisive = max(scored, key=lambda image: (image["percentile"], image["z_score"]), default=_NOTHING)
    return {
        "verdict": known[said],
        "outcome": str(outcome.ConceptCodeSequence[0].CodeValue),
        "summary": next((_value(item) for item in ds.ContentSequence if _english(item)), "").removeprefix(
            IN_ENGLISH
        ),
        **{key: decisive[key] for key in _NOTHING},
        "images": images,
        "comments": [_value(item) for item in evaluations.ContentSequence if _is(item, codes.COMMENT)],
        "notes": [_value(item) for item in evaluations.ContentSequence if _is(item, codes.QUALITY_NOTE)],
    }


_NOTHING: dict[str, Any] = {
    "score": None,
    "percentile": None,
    "z_score": None,
    "threshold": None,
    "above": None,
    "bank_hash": None,
    "algorithm": None,
    "parameters": {},
}


def _english(item: Dataset) -> bool:
    """Return whether an item is the summary in the document's own language, which has no language of its own."""
    return _is(item, codes.SUMMARY) and not item.get("ContentSequence")


def _images(groups: Iterable[Dataset]) -> list[dict[str, Any]]:
    """Return one entry an image; the first group of an image decides, further ones are measured beside it."""
    images: list[dict[str, Any]] = []
    for group in groups:
        outline = next((item for item in group.ContentSequence if item.ValueType == "SCOORD"), None)
        if outline is not None:
            _outlined(images, outline)
            continue
        source = next(item for item in group.ContentSequence if item.ValueType == "IMAGE")
        uid = str(source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        measured = _measured(group)
        if images and images[-1]["sop_instance_uid"] == uid and measured["score"] is not None:
            images[-1]["also"].append(measured)
            continue
        comments = [_value(item) for item in group.ContentSequence if _is(item, codes.COMMENT)]
        images.append({**measured, "sop_instance_uid": uid, "reason": (*comments, "")[0], "also": []})
    return images


def _outlined(images: list[dict[str, Any]], outline: Dataset) -> None:
    """Note the outline of a region with its image, as (column, row) pairs, the last the first again."""
    uid = str(outline.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    points = [float(value) for value in outline.GraphicData]
    for image in images:
        if image["sop_instance_uid"] == uid:
            image["region"] = list(zip(points[::2], points[1::2], strict=True))


def _measured(group: Dataset) -> dict[str, Any]:
    image = dict(_NOTHING)
    number = _child(group, codes.SCORE)
    if number is None:
        return image
    parameters = dict(
        _value(item).split("=", 1) for item in group.ContentSequence if _is(item, codes.ALGORITHM_PARAMETERS)
    )
    normality = _child(number, codes.NORMALITY)
    image |= {
        "score": _number(number),
        "percentile": _number(_child(number, codes.PERCENTILE)),
        "z_score": _number(_child(number, codes.Z_SCORE)),
        "threshold": _number(_child(number, codes.UPPER_LIMIT)),
        "above": normality is not None and normality.ConceptCodeSequence[0].CodeValue == codes.ABNORMAL.value,
        "bank_hash": parameters.get("bank_hash"),
        "algorithm": next(
            (_value(item) for item in group.ContentSequence if _is(item, codes.ALGORITHM_NAME)), None
        ),
        "parameters": parameters,
    }
    return image


def _document(report: bytes | Dataset) -> Dataset:
    try:
        ds = dcmread(BytesIO(report)) if isinstance(report, bytes) else report
    except (InvalidDicomError, EOFError) as error:
        raise ReportError(
            f"{len(cast('bytes', report))} bytes are no DICOM Part 10 file; an SR is one"
        ) from error
    if ds.get("ValueType") != "CONTAINER" or "ContentSequence" not in ds:
        raise ReportError(f"object {ds.get('SOPInstanceUID', '?')} has no content tree; it should be an SR")
    return ds


def _lines(item: Dataset, depth: int) -> Iterator[str]:
    label = _meaning(item.ConceptNameCodeSequence[0]) if item.get("ConceptNameCodeSequence") else item.ValueType
    value = _value(item)
    yield "  " * depth + (f"{label}: {value}" if value else label)
    for child in item.get("ContentSequence", ()):
        yield from _lines(child, depth + 1)


def _value(item: Dataset) -> str:
    kind = str(item.ValueType)
    if kind == "SCOORD":
        return f"{item.GraphicType} of {len(item.GraphicData) // 2} points"
    if kind in _PLAIN:
        return str(item.get(_PLAIN[kind], ""))
    if kind == "CODE":
        return _meaning(item.ConceptCodeSequence[0])
    if kind == "NUM":
        number = _number(item)
        unit = item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0] if number is not None else None
        shown = "" if unit is None or unit.CodeValue == "1" else f" {unit.CodeValue.strip('{}')}"
        return "none" if number is None else f"{number:.6g}{shown}"
    if kind in ("IMAGE", "COMPOSITE"):
        reference = item.ReferencedSOPSequence[0]
        return f"{UID(str(reference.ReferencedSOPClassUID)).name} {reference.ReferencedSOPInstanceUID}"
    return ""


def _number(item: Dataset | None) -> float | None:
    if item is None or not item.get("MeasuredValueSequence"):
        return None
    measured = item.MeasuredValueSequence[0]
    return float(measured.get("FloatingPointValue", measured.NumericValue))


def _child(item: Dataset, name: Code) -> Dataset | None:
    return next((child for child in item.get("ContentSequence", ()) if _is(child, name)), None)


def _is(item: Dataset, name: Code) -> bool:
    if not item.get("ConceptNameCodeSequence"):
        return False
    code = item.ConceptNameCodeSequence[0]
    return bool(
        code.get("CodeValue") == name.value and code.get("CodingSchemeDesignator") == name.scheme_designator
    )


def _meaning(code: Dataset) -> str:
    return str(code.get("CodeMeaning", code.get("CodeValue", "")))


def _moment(ds: Dataset) -> str:
    stamp = str(ds.get("ObservationDateTime", "")) or f"{ds.get('ContentDate', '')}{ds.get('ContentTime', '')}"
    day, time, zone = stamp[:8], stamp[8:14], "".join(re.findall(r"[+-]\d{4}\Z", stamp.strip()))
    return f"{day[:4]}-{day[4:6]}-{day[6:]} {time[:2]}:{time[2:4]}:{time[4:]} {zone}".strip(" -:")


def _joined(ds: Dataset, separator: str, *keywords: str) -> str:
    return separator.join(str(ds[keyword].value) for keyword in keywords if ds.get(keyword))


def _predecessors(ds: Dataset) -> Iterator[str]:
    for study in ds.get("PredecessorDocumentsSequence", ()):
        for series in study.ReferencedSeriesSequence:
            for reference in series.ReferencedSOPSequence:
                yield str(reference.ReferencedSOPInstanceUID)
