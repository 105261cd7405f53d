"""From the header of any image to one that a report may copy. Owns which attributes are copied. Pure.

Real headers lack, empty and misspell what the standard asks for. `normalise` keeps every legal value byte for
byte, in the character set it came in, spells right what was only misspelled, and leaves empty (type 2) or
out (type 3) what cannot be kept. It invents nothing: a value of the result was a value of the source. Names and
identifiers whose bytes do not fit the declared character set are kept all the same, since the PACS holds
the images under those very bytes.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.charset import convert_encodings, encode_string
from pydicom.datadict import dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import Tag
from pydicom.valuerep import PersonName

from dicom_node.report import values
from dicom_node.report.values import Judged

UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID")
PATIENT_OPTIONAL = (
    "IssuerOfPatientID", "TypeOfPatientID", "PatientBirthTime", "OtherPatientNames", "EthnicGroup",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "QualityControlSubject",
)  # fmt: skip
STUDY_OPTIONAL = (
    "StudyDescription", "PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingService",
    "PatientAge", "PatientSize", "PatientWeight", "AdmissionID", "PatientState", "TimezoneOffsetFromUTC",
)  # fmt: skip
IMAGE = ("PatientOrientation",)
IMAGE_OPTIONAL = (
    "FrameOfReferenceUID", "BodyPartExamined", "ViewPosition", "ImagerPixelSpacing", "PixelSpacing",
    "PresentationIntentType", "AcquisitionDate", "AcquisitionTime", "SeriesDescription",
)  # fmt: skip
NUMBERS = ("Rows", "Columns")

_CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
SEQUENCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # keyword: (attributes of an item that must be there, attributes that may be)
    "OtherPatientIDsSequence": (("PatientID", "TypeOfPatientID"), ("IssuerOfPatientID",)),
    "IssuerOfPatientIDQualifiersSequence": (("UniversalEntityID", "UniversalEntityIDType"), ()),
    "IssuerOfAccessionNumberSequence": (("LocalNamespaceEntityID",), ()),
    "DeidentificationMethodCodeSequence": (_CODE, ("CodingSchemeVersion",)),
    "ProcedureCodeSequence": (_CODE, ("CodingSchemeVersion",)),
    "ReferencedStudySequence": (("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"), ()),
}
COPIED = (*PATIENT, *PATIENT_OPTIONAL, *STUDY, *STUDY_OPTIONAL, *SEQUENCES)
"""Attributes of patient and study that a report takes from the source image."""
READ = (
    *UIDS, *COPIED, *IMAGE, *IMAGE_OPTIONAL, *NUMBERS, "Modality", "SpecificCharacterSet",
)  # fmt: skip
"""Every attribute that `normalise` looks at."""

_OWN_RULES: dict[str, Callable[[bytes], Judged]] = {
    "PatientSex": values.sex,
    "TimezoneOffsetFromUTC": values.timezone,
    "PatientOrientation": values.orientation,
    "ImagerPixelSpacing": values.spacing,
    "PixelSpacing": values.spacing,
}
_MODALITY_OF = {
    "1.2.840.10008.5.1.4.1.1.1": b"CR",
    "1.2.840.10008.5.1.4.1.1.1.1": b"DX",
    "1.2.840.10008.5.1.4.1.1.1.1.1": b"DX",
}
_UNREADABLE = (
    ValueError, TypeError, AttributeError, LookupError, ArithmeticError, NotImplementedError, OSError, EOFError,
    RecursionError, BytesLengthException, struct.error,
)  # fmt: skip
_LONGEST = 0xFFFE
"""Bytes of a value whose VR has a length of 16 bits, as all that are copied have (PS3.5 section 7.1.2)."""


def normalise(ds: Dataset) -> tuple[Dataset, tuple[str, ...]]:
    """Return a legal header made of what is usable in the header of an image.

    Parameters
    ----------
    ds
        Data set of an image, with or without pixels, as read. It is left as it is.

    Returns
    -------
    header
        SpecificCharacterSet where the source has a usable one; the type 2 attributes of patient and study and
        PatientOrientation, empty where the source has no legal value; Modality; and what is legal of the
        optional attributes and the UIDs. Values are the source's bytes.
    notes
        What differs from the source, as "Keyword: what"; never a value.
    """
    header = Dataset()
    notes: list[str] = []
    terms, wrong = _character_sets(ds)
    unknown = wrong == "unknown"
    decodable = () if unknown else terms
    for keyword in (*UIDS, *PATIENT, *STUDY, *IMAGE, *PATIENT_OPTIONAL, *STUDY_OPTIONAL, *IMAGE_OPTIONAL):
        required = keyword in UIDS or keyword in PATIENT or keyword in STUDY or keyword in IMAGE
        value, note = judged(ds, keyword, decodable)
        if value is None and required:
            note = f"{note}; {'left out' if keyword in UIDS else 'left empty'}"
            value = None if keyword in UIDS else b""
        elif value is None and note:
            note = f"{note}; left out"
        if note:
            notes.append(f"{keyword}: {note}")
        if value or (value is not None and keyword in (*PATIENT, *STUDY, *IMAGE)):
            _put(header, keyword, value)
    for keyword in NUMBERS:
        number = _number(ds, keyword)
        if number:
            setattr(header, keyword, number)
    for keyword in SEQUENCES:
        items, note = _sequence(ds, keyword, decodable)
        if items:
            setattr(header, keyword, items)
        if note:
            notes.append(f"{keyword}: {note}")
    _modality(ds, header, notes)
    _deidentification(header, notes)
    if unknown and (not _beyond_ascii(header) or any(values.judge("CS", t.encode())[0] is None for t in terms)):
        terms, wrong = (), "names no character set of the standard; left out"
    if wrong:
        notes.append(f"SpecificCharacterSet: {wrong}")
    if terms:
        _put(header, "SpecificCharacterSet", "\\".join(terms).encode())
    return header, tuple(notes)


def raw_value(ds: Dataset, keyword: str) -> bytes | None:
    """Return the bytes of a text-like element, without knowing what they mean; None where it is absent.

    Raises
    ------
    TypeError
        If the element is a sequence.
    ValueError
        If its value cannot be encoded in the data set's character sets.
    """
    element: Any = ds.get_item(Tag(keyword))
    if element is None:
        return None
    if isinstance(element, RawDataElement):
        if element.value is None and element.length:
            element = ds[Tag(keyword)]
        else:
            return bytes(element.value or b"")
    content = element.value
    if content is None:
        return b""
    if isinstance(content, bytes):
        return content
    if isinstance(content, ItemSequence):
        raise TypeError(f"{keyword} is a sequence")
    terms, _ = _character_sets(ds)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an unknown character set; the notes tell of it
        encodings = convert_encodings(list(terms) or [""])
    parts = content if isinstance(content, list) or hasattr(content, "insert") else [content]
    return b"\\".join(_encoded(part, encodings) for part in parts)


def _encoded(part: object, encodings: list[str]) -> bytes:
    if isinstance(part, PersonName):
        kept = part.original_string
        if isinstance(kept, bytes) and kept:
            return kept
        return b"=".join(encode_string(group, encodings) for group in str(part).split("="))
    return encode_string(str(part), encodings)


def judged(ds: Dataset, keyword: str, terms: tuple[str, ...] = ()) -> Judged:
    """Return the legal value of one element of a data set as read, and what was wrong with it."""
    try:
        raw = raw_value(ds, keyword)
    except _UNREADABLE:
        return None, "cannot be read"
    if raw is None:
        needed = keyword in UIDS or keyword in PATIENT or keyword in STUDY or keyword in IMAGE
        return None, "missing" if needed else ""
    if len(raw) > _LONGEST:
        return None, f"is longer than {_LONGEST} bytes"
    if keyword in _OWN_RULES:
        value, note = _OWN_RULES[keyword](raw)
    else:
        value, note = values.judge(_vr(keyword), raw, terms, many=dictionary_VM(Tag(keyword)) != "1")
    if value == b"" and keyword in UIDS:
        return None, "empty"
    return value, note


def _character_sets(ds: Dataset) -> tuple[tuple[str, ...], str]:
    element: Any = ds.get_item(Tag("SpecificCharacterSet"))
    if element is None:
        return (), ""
    content = element.value
    if isinstance(content, bytes):
        return values.character_sets(content)
    parts = [content] if isinstance(content, str) else list(content or ())
    return values.character_sets("\\".join(str(part) for part in parts).encode("latin_1", "replace"))


def _sequence(ds: Dataset, keyword: str, terms: tuple[str, ...]) -> tuple[list[Dataset], str]:
    try:
        items = ds[Tag(keyword)].value if Tag(keyword) in ds else []
    except _UNREADABLE:
        return [], "cannot be read; left out"
    if not isinstance(items, ItemSequence):
        return [], "is no sequence; left out" if items else ""
    required, optional = SEQUENCES[keyword]
    kept: list[Dataset] = []
    for item in items:
        clean = Dataset()
        for inner in (*required, *optional):
            value, _ = judged(item, inner, terms)
            if value:
                _put(clean, inner, value)
            elif inner in required:
                return [], f"an item has no legal {inner}; left out"
        kept.append(clean)
    return kept, ""


def _number(ds: Dataset, keyword: str) -> int | None:
    try:
        value = ds.get(keyword)
        number = int(value) if isinstance(value, int | str) else None
    except _UNREADABLE:
        return None
    return number if number is not None and 0 < number <= 0xFFFF else None


def _modality(ds: Dataset, header: Dataset, notes: list[str]) -> None:
    value, note = judged(ds, "Modality", ())
    if not value:
        value = _MODALITY_OF.get(header.get("SOPClassUID", ""), b"OT")
        note = f"{note or 'missing'}; taken from the SOP class"
    if note:
        notes.append(f"Modality: {note}")
    _put(header, "Modality", value)


def _deidentification(header: Dataset, notes: list[str]) -> None:
    how = "DeidentificationMethod" in header or "DeidentificationMethodCodeSequence" in header
    if "PatientIdentityRemoved" in header and (
        header.PatientIdentityRemoved not in ("YES", "NO")
        or (header.PatientIdentityRemoved == "YES" and not how)
    ):
        del header.PatientIdentityRemoved
        notes.append("PatientIdentityRemoved: is not YES with a method, or NO; left out")
    if "QualityControlSubject" in header and header.QualityControlSubject not in ("YES", "NO"):
        del header.QualityControlSubject
        notes.append("QualityControlSubject: is not YES or NO; left out")


def _beyond_ascii(ds: Dataset) -> bool:
    return any(not value.isascii() or b"\x1b" in value for value in _raw_values(ds))


def _raw_values(ds: Dataset) -> Iterator[bytes]:
    for tag in ds.keys():  # noqa: SIM118 - iterating a Dataset would decode its values
        element: Any = ds.get_item(tag)
        if isinstance(element, RawDataElement):
            yield element.value or b""
        elif isinstance(element, DataElement) and isinstance(element.value, ItemSequence):
            for item in element.value:
                yield from _raw_values(item)


def _put(ds: Dataset, keyword: str, value: bytes) -> None:
    vr = _vr(keyword)
    if len(value) % 2:
        value += b"\0" if vr == "UI" else b" "
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True, True)


def _vr(keyword: str) -> str:
    return dictionary_VR(Tag(keyword))
