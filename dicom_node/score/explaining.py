"""From a heat map to an explanation that leaves this room: plain values, and a picture for people. Pure."""

from __future__ import annotations

import numpy as np

from dicom_node.domain.explanation import Explanation, Picture, Region
from dicom_node.domain.types import Measurement
from dicom_node.score.heat_picture import compose, layer
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import Saliency

PICTURE_WIDTH = 1280
"""Pixels of the widest picture: what a reading station shows whole, its words at their own size."""


def explanation_of(
    sop_instance_uid: str,
    grey: Grey,
    saliency: Saliency,
    measured: Measurement,
    value_range: tuple[float, float],
) -> Explanation:
    """Return the explanation of one image.

    Parameters
    ----------
    grey, saliency
        The image (H, W) in [0, 1], and where it lies far from normal.
    measured
        Its score by the same bank.
    value_range
        Smallest and largest value after the Modality LUT.
    """
    sheet = compose(grey, saliency, measured.score, measured.provenance, PICTURE_WIDTH)
    region = saliency.region
    return Explanation(
        sop_instance_uid=sop_instance_uid,
        rows=grey.shape[0],
        columns=grey.shape[1],
        method=saliency.method,
        false_positive_rate=saliency.false_positive_rate,
        region=None
        if region is None
        else Region(tuple((float(x), float(y)) for x, y in region.outline), region.area),
        mask=np.packbits(saliency.above, bitorder="little").tobytes(),
        value_range=value_range,
        picture=Picture(sheet.height, sheet.width, sheet.tobytes()),
        layer=layer(saliency),
    )
