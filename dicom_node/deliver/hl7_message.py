"""A report as an HL7 v2.5.1 message ORU^R01, and what an acknowledgement means. Pure; knows nothing of sockets.

Reads the tree of any report of TID 1500. Written here, not by a library: hl7apy 1.3 leaves "&" and control characters
of a name as they are and takes a backslash in it for an escape; it judges these messages in the tests instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from itertools import chain, count

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.valuerep import PersonName

from dicom_node.domain.errors import CannotUnderstandError

VERSION = "2.5.1"
UNVERIFIED = "R"
"""Result status: stored, not yet verified (HL7 tables 0085 and 0123)."""

_SUMMARY, _COMMENT, _PROCEDURE, _ALGORITHM, _LIBRARY = "121111", "121106", "121058", "111001", "111028"

_CHARACTER_SETS = {
    "ISO_IR 100": ("8859/1", "iso8859-1"),
    "ISO_IR 101": ("8859/2", "iso8859-2"),
    "ISO_IR 109": ("8859/3", "iso8859-3"),
    "ISO_IR 110": ("8859/4", "iso8859-4"),
    "ISO_IR 144": ("8859/5", "iso8859-5"),
    "ISO_IR 127": ("8859/6", "iso8859-6"),
    "ISO_IR 126": ("8859/7", "iso8859-7"),
    "ISO_IR 138": ("8859/8", "iso8859-8"),
    "ISO_IR 148": ("8859/9", "iso8859-9"),
    "ISO_IR 203": ("8859/15", "iso8859-15"),
}
"""By DICOM's name, HL7's (table 0211) and Python's. In other sets a delimiter may be half of a character."""

_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"} | {
    chr(code): f"\\X{code:02X}\\" for code in (*range(0x20), 0x7F)
}
_ESCAPED = str.maketrans(_ESCAPES)


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its control ID, its bytes, and the object that it tells of."""

    control_id: str
    sop_instance_uid: str
    content: bytes


def oru(
    report: bytes,
    *,
    sending: tuple[str, str],
    receiving: tuple[str, str],
) -> Message:
    """Return the message that tells of a report; the same one for the same report.

    Its character set is that of the images, as far as HL7 has a set of one byte for it and all text fits, else UTF-8.

    Parameters
    ----------
    report
        A Part 10 file of a report with the template TID 1500.
    sending, receiving
        Application and facility (MSH-3 to MSH-6).

    Raises
    ------
    CannotUnderstandError
        If it is no such file.
    """
    try:
        ds = dcmread(BytesIO(report))
        uid = str(ds.SOPInstanceUID)
        control_id = sha256(uid.encode()).hexdigest()[:20].upper()
        segments = [_pid(ds), _obr(ds), *_observations(ds)]
        name, codec = _character_set(ds, "".join([*segments, *sending, *receiving]))
        segments.insert(0, _msh(ds, control_id, sending, receiving, name))
    except (InvalidDicomError, AttributeError, KeyError, IndexError, ValueError, TypeError) as error:
        raise CannotUnderstandError(f"the object to tell of is no report: {type(error).__name__}") from error
    return Message(control_id, uid, "".join(f"{segment}\r" for segment in segments).encode(codec, "replace"))


def escape(text: str) -> str:
    """Return a text with its delimiters and control characters escaped (HL7 2.5.1 section 2.7)."""
    return text.translate(_ESCAPED)


def _segment(name: str, fields: dict[int, str]) -> str:
    return "|".join([name, *(fields.get(number, "") for number in range(1, max(fields) + 1))])


def _msh(
    ds: Dataset, control_id: str, sending: tuple[str, str], receiving: tuple[str, str], character_set: str
) -> str:
    names = [escape(name) for name in (*sending, *receiving)]
    rest = {1: _moment(ds, "InstanceCreation"), 3: "ORU^R01^ORU_R01", 4: control_id, 5: "P", 6: VERSION}
    if character_set:
        rest[12] = character_set
    return "|".join(["MSH", "^~\\&", *names, _segment("", rest)[1:]])


def _pid(ds: Dataset) -> str:
    fields = {1: "1", 3: escape(str(ds.get("PatientID") or ""))}
    if issuer := str(ds.get("IssuerOfPatientID") or ""):
        fields[3] += f"^^^{escape(issuer)}"
    fields[5] = _names(ds.get("PatientName"))
    fields[7] = _date(ds.get("PatientBirthDate"))
    sex = str(ds.get("PatientSex") or "")
    fields[8] = sex if sex in {"M", "F", "O"} else "U"
    return _segment("PID", fields)


def _obr(ds: Dataset) -> str:
    request = next(iter(ds.get("ReferencedRequestSequence") or ()), Dataset())
    accession = str(ds.get("AccessionNumber") or "")
    filler = str(request.get("FillerOrderNumberImagingServiceRequest") or "") or accession
    procedure = next(
        (item.ConceptCodeSequence[0] for item in _children(ds) if _concept(item) == _PROCEDURE), None
    )
    return _segment(
        "OBR",
        {
            1: "1",
            2: escape(str(request.get("PlacerOrderNumberImagingServiceRequest") or "")),
            3: escape(filler or str(ds.StudyInstanceUID)),
            4: _code(procedure if procedure is not None else ds.ConceptNameCodeSequence[0]),
            7: _moment(ds, "Study"),
            16: _name(ds.get("ReferringPhysicianName"), before="^"),
            18: escape(accession),
            22: _moment(ds, "Content"),
            24: "RAD",
            25: UNVERIFIED,
        },
    )


def _observations(ds: Dataset) -> Iterator[str]:
    moment = _moment(ds, "Content")
    found = [
        ("ST", "110180^Study Instance UID^DCM", "", str(ds.StudyInstanceUID), "", ""),
        ("ST", "SR_INSTANCE_UID^SR Instance UID^L", "", str(ds.SOPInstanceUID), "", ""),
        *_statements(ds),
    ]
    seen: set[tuple[str, str]] = set()
    for number, (kind, concept, group, value, units, method) in enumerate(found, 1):
        others = (f"{group or 0}.{nth}" for nth in count(2))
        sub_id = next(one for one in chain([group], others) if (concept, one) not in seen)
        seen.add((concept, sub_id))  # OBX-3 and OBX-4 together name one observation of the message
        fields = {
            1: str(number),
            2: kind,
            3: concept,
            4: sub_id,
            5: value,
            6: units,
            11: UNVERIFIED,
            14: moment,
        }
        if method:
            fields[17] = f"^{escape(method)}"
        yield _segment("OBX", fields)


def _statements(ds: Dataset) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Yield type, concept, number of the group, value, units and method of each statement: summary, verdict, scores."""
    group = 0
    for top in _children(ds):
        if top.ValueType == "TEXT" and _concept(top) == _SUMMARY:
            yield _observation(top, "", "")
        if top.ValueType != "CONTAINER" or _concept(top) == _LIBRARY:
            continue
        for item in _children(top):
            if item.ValueType != "CONTAINER":
                if _is_told(item):
                    yield _observation(item, "", "")
                continue
            group += 1
            algorithm = next((str(one.TextValue) for one in _children(item) if _concept(one) == _ALGORITHM), "")
            for one in _children(item):
                for statement in (one, *(_children(one) if one.ValueType == "NUM" else ())):
                    if _is_told(statement):
                        yield _observation(statement, str(group), algorithm)


def _is_told(item: Dataset) -> bool:
    if item.RelationshipType not in {"CONTAINS", "HAS PROPERTIES"}:
        return False
    if item.ValueType == "NUM":
        return bool(item.get("MeasuredValueSequence"))
    return item.ValueType == "CODE" or (item.ValueType == "TEXT" and _concept(item) == _COMMENT)


def _observation(item: Dataset, sub_id: str, method: str) -> tuple[str, str, str, str, str, str]:
    concept = _code(item.ConceptNameCodeSequence[0])
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        units = _code(measured.MeasurementUnitsCodeSequence[0])
        return "NM", concept, sub_id, str(measured.NumericValue), units, method
    if item.ValueType == "CODE":
        return "CE", concept, sub_id, _code(item.ConceptCodeSequence[0]), "", method
    return "TX", concept, sub_id, escape(str(item.TextValue)), "", method


def _children(item: Dataset) -> list[Dataset]:
    return list(item.get("ContentSequence") or ())


def _concept(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _code(code: Dataset) -> str:
    parts = (code.get(keyword, "") for keyword in ("CodeValue", "CodeMeaning", "CodingSchemeDesignator"))
    return "^".join(escape(str(part)) for part in parts)


def _names(name: PersonName | None) -> str:
    """Return a name in each of its representations (XPN-8: alphabetic, ideographic, phonetic)."""
    if not name:
        return ""
    shown = zip("AIP", (name.alphabetic, name.ideographic, name.phonetic), strict=True)
    return "~".join(
        f"{_parts(group)}^^{representation}" if representation != "A" else _parts(group).rstrip("^")
        for representation, group in shown
        if group
    )


def _name(name: PersonName | None, before: str) -> str:
    return before + _parts(name.alphabetic).rstrip("^") if name and name.alphabetic else ""


def _parts(group: str) -> str:
    """Return family^given^middle^suffix^prefix^degree of DICOM's family^given^middle^prefix^suffix."""
    family, given, middle, prefix, suffix = [escape(part) for part in (group.split("^") + [""] * 5)[:5]]
    return "^".join((family, given, middle, suffix, prefix, ""))


def _date(value: object) -> str:
    text = str(value or "")
    return text if re.fullmatch(r"\d{8}", text) else ""


def _moment(ds: Dataset, what: str) -> str:
    """Return a moment of the data set as an HL7 time stamp, in the zone that it states."""
    date = _date(ds.get(f"{what}Date"))
    time = re.match(r"\d{6}|\d{4}", str(ds.get(f"{what}Time") or ""))
    zone = str(ds.get("TimezoneOffsetFromUTC") or "")
    if not date or time is None:
        return date
    return date + time[0] + (zone if re.fullmatch(r"[+-]\d{4}", zone) else "")


def _character_set(ds: Dataset, text: str) -> tuple[str, str]:
    if text.isascii():
        return "", "ascii"
    stated = ds.get("SpecificCharacterSet") or ""
    name, codec = _CHARACTER_SETS.get(stated if isinstance(stated, str) else "", ("", "ascii"))
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return "UNICODE UTF-8", "utf-8"
    return name, codec
