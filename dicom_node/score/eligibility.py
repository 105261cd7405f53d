"""Which images are scored, and a stated reason for each that is not. Pure: header in, refusal out.

The reasons go to people and into reports; they quote technical attributes only, never the patient's.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset

from dicom_node.config import Eligibility
from dicom_node.domain.ids import quoted_code
from dicom_node.domain.types import Refusal
from dicom_node.score.attributes import items, text, texts, value_of

DEFAULT_RULES = Eligibility()

CR = "1.2.840.10008.5.1.4.1.1.1"
DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"
DX_FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
SECONDARY_CAPTURES = (
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.7.2",
    "1.2.840.10008.5.1.4.1.1.7.3",
)

SOP_CLASSES = (CR, DX_FOR_PRESENTATION, DX_FOR_PROCESSING, *SECONDARY_CAPTURES)
"""Classes that carry a projection radiograph; a Secondary Capture does where its Modality says so."""

_VIEW_CODES = {
    ("SCT", "399348003"): "AP",
    ("SRT", "R-10206"): "AP",
    ("SNM3", "R-10206"): "AP",
    ("SCT", "272479007"): "PA",
    ("SRT", "R-10214"): "PA",
    ("SNM3", "R-10214"): "PA",
    ("SCT", "399173006"): "LL",
    ("SRT", "R-10236"): "LL",
    ("SNM3", "R-10236"): "LL",
    ("SCT", "399198007"): "RL",
    ("SRT", "R-10232"): "RL",
    ("SNM3", "R-10232"): "RL",
    ("SCT", "399067008"): "LATERAL",
    ("SRT", "R-102CD"): "LATERAL",
    ("SNM3", "R-102CD"): "LATERAL",
}
"""The frontal and lateral members of CID 4010 (PS3.16), in its present and its older coding."""

CODES = (
    "sop_class",
    "modality",
    "presentation_intent",
    "image_type",
    "body_part",
    "view",
    "samples",
    "frames",
    "size",
)
"""Every code `judge` can give, in the order of the checks. Stable: programs may rely on them."""


def judge(ds: Dataset, rules: Eligibility = DEFAULT_RULES) -> Refusal | None:
    """Return why the image is not to be scored, or None if it is.

    Parameters
    ----------
    ds
        Data set; the header suffices.
    rules
        The configuration's ``[score.eligibility]``.

    Returns
    -------
    Refusal or None
        The first rule broken: its code is one of `CODES`, its sentence says what was seen and what is wanted.
    """
    sop_class = text(ds, "SOPClassUID")
    if sop_class and sop_class not in SOP_CLASSES:
        return Refusal(
            "sop_class",
            f"SOP Class is {sop_class}; only CR, DX and Secondary Capture images are scored",
        )
    modality = text(ds, "Modality")
    if rules.modalities and not _among(modality, rules.modalities):
        return _refusal("modality", "Modality", modality, rules.modalities)
    intent = text(ds, "PresentationIntentType")
    if not intent and sop_class == DX_FOR_PROCESSING:
        intent = "FOR PROCESSING"
    if rules.presentation_intents and intent and not _among(intent, rules.presentation_intents):
        return _refusal("presentation_intent", "Presentation Intent Type", intent, rules.presentation_intents)
    kinds = texts(ds, "ImageType")
    if "LOCALIZER" in kinds:
        return Refusal(
            "image_type", "Image Type has LOCALIZER among its values; it is no radiograph to be read"
        )
    body_part = stated_body_part(ds)
    if rules.body_parts and not _allowed(body_part, rules.body_parts, required=rules.require_body_part):
        return _refusal("body_part", "Body Part Examined", body_part, rules.body_parts)
    view = stated_view(ds)
    if rules.view_positions and not _allowed(view, rules.view_positions, required=rules.require_view_position):
        return _refusal("view", "View Position", view, rules.view_positions)
    return _shape(ds, rules)


def stated_view(ds: Dataset) -> str:
    """Return the view in upper case ("PA", "AP", "LL"), from View Position or else the View Code, or ""."""
    view = text(ds, "ViewPosition")
    codes = items(ds, "ViewCodeSequence")
    if view or not codes:
        return view
    item = codes[0]
    code = (text(item, "CodingSchemeDesignator"), text(item, "CodeValue"))
    return _VIEW_CODES.get(code) or text(item, "CodeMeaning") or code[1]


def stated_body_part(ds: Dataset) -> str:
    """Return the body part in upper case, from Body Part Examined or else the Anatomic Region, or ""."""
    part = text(ds, "BodyPartExamined")
    regions = items(ds, "AnatomicRegionSequence")
    return part or (text(regions[0], "CodeMeaning") if regions else "")


def _shape(ds: Dataset, rules: Eligibility) -> Refusal | None:
    samples = value_of(ds, "SamplesPerPixel")
    photometric = text(ds, "PhotometricInterpretation")
    if samples not in (None, 1, 3) or photometric == "PALETTE COLOR":
        return Refusal(
            "samples",
            f"Samples per Pixel is {samples} with Photometric Interpretation {quoted_code(photometric)}; "
            "a grey image has 1, or 3 equal ones",
        )
    frames = value_of(ds, "NumberOfFrames")
    if frames not in (None, "", 0, 1):
        return Refusal("frames", f"Number of Frames is {frames}; a projection radiograph has one")
    stated = value_of(ds, "Rows"), value_of(ds, "Columns")
    rows, columns = (side if isinstance(side, int) else 0 for side in stated)
    if min(rows, columns) < rules.minimum_pixels:
        return Refusal(
            "size", f"the image is {rows} x {columns} pixels; each side needs at least {rules.minimum_pixels}"
        )
    return None


def _refusal(code: str, name: str, seen: str, wanted: Iterable[str]) -> Refusal:
    shown = quoted_code(seen) if seen else "not stated"
    return Refusal(code, f"{name} is {shown}; scored are: {', '.join(wanted)}")


def _allowed(seen: str, wanted: Iterable[str], *, required: bool) -> bool:
    return _among(seen, wanted) if seen else not required


def _among(seen: str, wanted: Iterable[str]) -> bool:
    return seen in {value.strip().upper() for value in wanted}
