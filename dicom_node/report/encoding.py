"""A data set to the bytes of a Part 10 file in Explicit VR Little Endian (PS3.10 and PS3.5, section 7). Pure.

Raw elements are written as they are, at every depth. pydicom's own writer would decode and encode them again,
which changes names in character sets that it knows only in part, and warns with the value.
"""

from __future__ import annotations

from struct import pack
from typing import Any

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from dicom_node.report.uids import derived

IMPLEMENTATION_CLASS_UID = derived("dicom_node", "implementation class")
IMPLEMENTATION_VERSION = "DICOM_NODE"

_ITEM = pack("<HH", 0xFFFE, 0xE000)


def encode(ds: Dataset, character_set: str | tuple[str, ...]) -> bytes:
    """Return a data set as a Part 10 file.

    Parameters
    ----------
    ds
        Raw elements must be little endian, of even length and known VR.
    character_set
        Defined terms in which the elements that are not raw are encoded: "ISO_IR 6" where all of them are ASCII.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION
    head = DicomBytesIO()
    write_file_meta_info(head, meta, enforce_standard=True)
    terms = [character_set] if isinstance(character_set, str) else list(character_set)
    return bytes(128) + b"DICM" + head.getvalue() + _data_set(ds, terms)


def _data_set(ds: Dataset, terms: list[str]) -> bytes:
    return b"".join(_element(ds.get_item(tag), terms) for tag in sorted(ds.keys()))


def _element(element: Any, terms: list[str]) -> bytes:
    if isinstance(element, RawDataElement):
        return _framed(element.tag, str(element.VR), element.value or b"")
    if element.VR == VR.SQ:
        items = [_data_set(item, terms) for item in element.value]
        return _framed(element.tag, "SQ", b"".join(_ITEM + pack("<L", len(item)) + item for item in items))
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, terms)
    return buffer.getvalue()


def _framed(tag: BaseTag, vr: str, value: bytes) -> bytes:
    head = pack("<HH", tag.group, tag.element) + vr.encode()
    if vr in EXPLICIT_VR_LENGTH_32:
        return head + pack("<HL", 0, len(value)) + value
    return head + pack("<H", len(value)) + value
