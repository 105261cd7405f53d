"""Grayscale Softcopy Presentation State with the outline of the most unusual region (PS3.3 section A.33.1). Pure.

Owns how the image is to look under the outline: as it looks without. A presentation state replaces every grey value
transformation of the image, its photometric interpretation included (PS3.4 section N.2.1.4), so those that the image
states are repeated, and where it states none its whole range of values is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime

from pydicom.dataset import Dataset
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage
from pydicom.valuerep import DSfloat

from dicom_node.domain.explanation import Explanation, Region
from dicom_node.domain.types import Report
from dicom_node.report.display import DESCRIPTION, LABEL, NOTICE, Source, begin, reference
from dicom_node.report.document import Equipment
from dicom_node.report.header import raw_value

SHOWN_BY = (
    "PhotometricInterpretation", "RescaleIntercept", "RescaleSlope", "WindowCenter", "WindowWidth", "VOILUTFunction",
)  # fmt: skip
"""What of an image's header says how it is shown, beside the attributes of `header.READ`."""

_LAYER = "UNUSUAL"


def build(
    report: Report,
    source: Source,
    explanation: Explanation,
    equipment: Equipment,
    at: datetime,
    number: int = 1,
) -> Report | None:
    """Return the outline over the image; None where no area is above the threshold."""
    if explanation.region is None:
        return None
    begun = begin(
        report,
        source,
        equipment,
        at,
        kind="presentation",
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        modality="PR",
        series_number=3,
        series_description="Most unusual region (research)",
        number=number,
    )
    ds = begun.ds
    ds.ContentLabel = LABEL
    ds.ContentDescription = DESCRIPTION
    ds.ContentCreatorName = ds.Laterality = ""
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    del ds.ContentDate, ds.ContentTime
    shown = reference(source.sop_class_uid, source.sop_instance_uid)
    series = Dataset()
    series.SeriesInstanceUID = source.series_instance_uid
    series.ReferencedImageSequence = [shown]
    ds.ReferencedSeriesSequence = [series]
    ds.DisplayedAreaSelectionSequence = [_area(shown, source.header, explanation)]
    ds.GraphicAnnotationSequence = [_annotation(shown, explanation.region, explanation)]
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = _LAYER, 1
    layer.GraphicLayerRecommendedDisplayCIELabValue = _CYAN
    ds.GraphicLayerSequence = [layer]
    _modality(ds, source.header)
    ds.SoftcopyVOILUTSequence = [_window(shown, source.header, explanation)]
    ds.PresentationLUTShape = (
        "INVERSE" if _text(source.header, "PhotometricInterpretation") == "MONOCHROME1" else "IDENTITY"
    )
    return begun.finish()


_CYAN = [59752, 20816, 29166]
"""Of the outline, as in the heat map's picture: sRGB 64, 224, 255 in the encoding of PS3.3 section C.10.7.1.1."""


def _area(shown: Dataset, header: Dataset, explanation: Explanation) -> Dataset:
    area = Dataset()
    area.ReferencedImageSequence = [shown]
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [explanation.columns, explanation.rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    spacing = _numbers(header, "PixelSpacing") or _numbers(header, "ImagerPixelSpacing")
    if len(spacing) == 2 and min(spacing) > 0:
        area.PresentationPixelSpacing = [_decimal(value) for value in spacing]
    else:
        area.PresentationPixelAspectRatio = [1, 1]
    return area


def _annotation(shown: Dataset, region: Region, explanation: Explanation) -> Dataset:
    points = [*region.outline, region.outline[0]]
    graphic = Dataset()
    graphic.GraphicAnnotationUnits, graphic.GraphicDimensions = "PIXEL", 2
    graphic.NumberOfGraphicPoints = len(points)
    # From the corner of the first pixel, as ours (PS3.3 section C.10.5.1.2).
    graphic.GraphicData = [float(value) for point in points for value in point]
    graphic.GraphicType, graphic.GraphicFilled = "POLYLINE", "N"
    text = Dataset()
    text.BoundingBoxAnnotationUnits = "PIXEL"
    text.UnformattedTextValue = f"Unusual for this site's normals\r\n{NOTICE}"
    top, left = min(y for _, y in points), min(x for x, _ in points)
    height, width = max(1.0, explanation.rows * 0.05), max(1.0, explanation.columns * 0.4)
    left = max(1.0, min(left, explanation.columns - width))
    top = top - height if top > height + 1 else min(max(y for _, y in points) + 1, explanation.rows - height)
    text.BoundingBoxTopLeftHandCorner = [left, max(1.0, top)]
    text.BoundingBoxBottomRightHandCorner = [left + width, max(1.0, top) + height]
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    item = Dataset()
    item.ReferencedImageSequence = [shown]
    item.GraphicLayer = _LAYER
    item.TextObjectSequence = [text]
    item.GraphicObjectSequence = [graphic]
    return item


def _modality(ds: Dataset, header: Dataset) -> None:
    intercept, slope = _numbers(header, "RescaleIntercept"), _numbers(header, "RescaleSlope")
    if intercept and slope:
        ds.RescaleIntercept, ds.RescaleSlope = _decimal(intercept[0]), _decimal(slope[0])
        ds.RescaleType = "US"


def _window(shown: Dataset, header: Dataset, explanation: Explanation) -> Dataset:
    item = Dataset()
    item.ReferencedImageSequence = [shown]
    centre, width = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    if centre and width and width[0] >= 1:
        item.WindowCenter, item.WindowWidth = _decimal(centre[0]), _decimal(width[0])
        if (function := _text(header, "VOILUTFunction")) in ("LINEAR_EXACT", "SIGMOID"):  # else it is LINEAR
            item.VOILUTFunction = function
        return item
    low, high = explanation.value_range
    # A linear window's lowest value is black below centre - 0.5 - (width - 1) / 2 (PS3.3 section C.11.2.1.2.1).
    item.WindowWidth = _decimal(max(high - low, 1.0) + 1.0)
    item.WindowCenter = _decimal((low + high + 1.0) / 2.0)
    return item


def _text(header: Dataset, keyword: str) -> str:
    return (raw_value(header, keyword) or b"").decode("ascii", "replace").strip(" \0")


def _numbers(header: Dataset, keyword: str) -> list[float]:
    return list(_floats(_text(header, keyword).split("\\")))


def _floats(texts: list[str]) -> Iterator[float]:
    for text in texts:
        try:
            value = float(text)
        except ValueError:
            return
        if not math.isfinite(value):
            return
        yield value


def _decimal(value: float) -> DSfloat:
    return DSfloat(value, auto_format=True)
