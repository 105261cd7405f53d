"""What the Conformance Statement tells of the objects that are made, from what makes them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.sr.coding import Code
from pydicom.uid import (
    UID,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.domain.statement import Table
from dicom_node.report import codes, profile

DISPLAY_CLASSES = {
    "secondary-capture": str(SecondaryCaptureImageStorage),
    "presentation-state": str(GrayscaleSoftcopyPresentationStateStorage),
    "key-objects": str(KeyObjectSelectionDocumentStorage),
    "segmentation": str(SegmentationStorage),
}
"""SOP Class of each kind of display object, by its name in the configuration."""

_SHOWN = {
    "secondary-capture": "image, heat map and legend; BurnedInAnnotation YES",
    "presentation-state": "outline of the most unusual region on the image",
    "key-objects": "the images above threshold (113000, DCM, Of Interest)",
    "segmentation": "binary: what lies above the threshold of the heat map",
}
_CUT = ("the whole tree", "the whole tree", "the whole tree", "numbers as text, no coordinates")


def report_classes() -> Table:
    """Return the SOP classes of a report, the preferred one first, and what each holds."""
    rows = ((UID(uid).name, uid, holds) for uid, holds in zip(profile.CLASSES, _CUT, strict=True))
    return Table(("report as", "UID", "content"), tuple(rows))


def display_objects() -> Table:
    """Return the objects that may accompany a report."""
    rows = ((f"`{kind}`", UID(uid).name, uid, _SHOWN[kind]) for kind, uid in DISPLAY_CLASSES.items())
    return Table(("object", "SOP class", "UID", "what it shows"), tuple(rows))


def private_codes() -> Table:
    """Return the codes of the private scheme."""
    own = dict.fromkeys(code for code in _codes() if code.scheme_designator == codes.SCHEME)
    return Table(("code", "meaning"), tuple((code.value, code.meaning) for code in own))


def schemes() -> str:
    """Return the designators of the standard's coding schemes in use."""
    return ", ".join(sorted({code.scheme_designator for code in _codes()} - {codes.SCHEME}))


def _codes() -> Iterator[Code]:
    for value in vars(codes).values():
        for one in value.values() if isinstance(value, dict) else (value,):
            if isinstance(one, Code):
                yield one
