"""Where an image lies far from normal, as rooms hand it to each other: plain values, no arrays."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Region:
    r"""The most unusual connected area of an image.

    Attributes
    ----------
    outline
        Corners of its convex outline as (column, row) in pixels, 0\0 the outer corner of the first pixel (as SCOORD,
        PS3.3 section C.18.6.1.2); the first is not repeated.
    area
        Share of the image, in [0, 1].
    """

    outline: tuple[tuple[float, float], ...]
    area: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A colour picture: `rgb` holds rows x columns x 3 bytes, row by row."""

    rows: int
    columns: int
    rgb: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where one image lies far from normal, and a picture of it for people.

    Attributes
    ----------
    sop_instance_uid
        Of the image.
    rows, columns
        Of the image, pixels.
    method
        How the map was made, for people.
    false_positive_rate
        Share of held-out normals in which anything is above the threshold, in [0, 1].
    region
        The largest area above the threshold; None where nothing is.
    mask
        Which pixels are above it: one bit each, row by row, the first in the lowest bit of the first byte (as
        pixel data of one bit allocated, PS3.5 section 8.1.1), padded to whole bytes.
    value_range
        Smallest and largest value of the image after its Modality LUT.
    picture
        The image beside itself under the heat map, with a legend.
    layer
        The heat map alone: a small PNG of the image's proportions, transparent where nothing is unusual; b"" where it
        was not drawn.
    """

    sop_instance_uid: str
    rows: int
    columns: int
    method: str
    false_positive_rate: float
    region: Region | None
    mask: bytes = field(repr=False)
    value_range: tuple[float, float]
    picture: Picture
    layer: bytes = field(default=b"", repr=False)
