"""The image library of a report (PS3.16 TID 1600 to 1603) and the content items it is made of. Pure.

Written here because highdicom's own needs attributes that real images lack (PatientOrientation,
ImagerPixelSpacing) and takes the modality from the SOP class, which calls every Secondary Capture "Other".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from highdicom.sr import (
    CodeContentItem,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    ImageContentItem,
    NumContentItem,
    RelationshipTypeValues,
    TextContentItem,
    UIDRefContentItem,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_node.domain.types import ImageResult
from dicom_node.report import codes

_CONTAINS = RelationshipTypeValues.CONTAINS
_ACQUISITION = RelationshipTypeValues.HAS_ACQ_CONTEXT
_PROJECTION = ("CR", "DX", "RG", "RF", "XA", "MG")


def is_image(sop_class_uid: str) -> bool:
    """Return whether an object of this class is an image: PS3.6 calls those "... Image Storage"."""
    return "Image Storage" in UID(sop_class_uid).name


def code_item(name: Code, value: Code, relationship: RelationshipTypeValues) -> CodeContentItem:
    """Return a CODE item."""
    return CodeContentItem(name=name, value=value, relationship_type=relationship)


def text_item(name: Code, value: str, relationship: RelationshipTypeValues) -> TextContentItem:
    """Return a TEXT item."""
    return TextContentItem(name=name, value=value, relationship_type=relationship)


def number_item(name: Code, value: float, unit: Code, relationship: RelationshipTypeValues) -> NumContentItem:
    """Return a NUM item; a whole number is written as one (highdicom writes 1955 as 1955.0)."""
    item = NumContentItem(name=name, value=value, unit=unit, relationship_type=relationship)
    if isinstance(value, int):
        item.MeasuredValueSequence[0].NumericValue = str(value)
    return item


def library(shown: Sequence[tuple[ImageResult, Dataset]], fit: Callable[[str], str]) -> ContainerContentItem:
    """Return the image library: every image looked at, with what its header says of it that is legal."""
    group = ContainerContentItem(name=codes.IMAGE_LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence()
    for image, header in shown:
        entry = ImageContentItem(
            name=codes.SOURCE,
            referenced_sop_class_uid=image.sop_class_uid,
            referenced_sop_instance_uid=image.sop_instance_uid,
            relationship_type=_CONTAINS,
        )
        entry.ContentSequence = ContentSequence(list(_descriptors(header, fit)))
        group.ContentSequence.append(entry)
    library = ContainerContentItem(name=codes.IMAGE_LIBRARY, relationship_type=_CONTAINS, template_id="1600")
    library.ContentSequence = ContentSequence([group])
    return library


def _descriptors(header: Dataset, fit: Callable[[str], str]) -> Iterator[ContentItem]:
    modality = str(header.get("Modality", "OT"))
    yield code_item(codes.MODALITY, codes.MODALITIES.get(modality, codes.MODALITIES["OT"]), _ACQUISITION)
    if "FrameOfReferenceUID" in header:
        yield UIDRefContentItem(
            name=codes.FRAME_OF_REFERENCE_UID,
            value=header.FrameOfReferenceUID,
            relationship_type=_ACQUISITION,
        )
    for name, keyword in ((codes.ROWS, "Rows"), (codes.COLUMNS, "Columns")):
        if keyword in header:
            yield number_item(name, int(header[keyword].value), codes.PIXELS, _ACQUISITION)
    if modality not in _PROJECTION:
        return
    if header.get("ViewPosition") in codes.VIEWS:
        yield code_item(codes.IMAGE_VIEW, codes.VIEWS[header.ViewPosition], _ACQUISITION)
    orientation = header.get("PatientOrientation")
    if orientation:
        yield text_item(codes.PATIENT_ORIENTATION_ROW, fit(orientation[0]), _ACQUISITION)
        yield text_item(codes.PATIENT_ORIENTATION_COLUMN, fit(orientation[1]), _ACQUISITION)
    spacing = header.get("ImagerPixelSpacing")
    if spacing:
        yield number_item(codes.HORIZONTAL_PIXEL_SPACING, float(spacing[1]), codes.MILLIMETRE, _ACQUISITION)
        yield number_item(codes.VERTICAL_PIXEL_SPACING, float(spacing[0]), codes.MILLIMETRE, _ACQUISITION)
