"""Where an image lies far from normal: distances of its places to a bank's patches of normal chests.

The method is PatchCore's (Roth et al., CVPR 2022) with the place as part of the distance, since chests are
roughly aligned. A heat means "farther than x % of the places in held-out normals"; nothing is stretched to the
image at hand. Computed on request only; knows nothing of headers or of the image's own score.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.heat_scale import HeatScale
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import Floats, PatchBank, Places, patches_of
from dicom_node.score.pixels import Grey
from dicom_node.score.views import make_views, to_batch, view_box

METHOD = "distance of places to patches of normal chests (as PatchCore), aware of position"

FIELD = 56
"""Rows and columns of the grid over the whole image on which distances are put together and calibrated."""


@dataclass(frozen=True, slots=True)
class Look:
    """Where a view's map looks.

    Attributes
    ----------
    box
        Top, left, bottom, right as shares of the image; see `view_box`.
    shift
        Down and across, as shares of the box.
    """

    box: tuple[float, float, float, float]
    shift: tuple[float, float] = (0.0, 0.0)

    def along(self, cells: int, axis: int) -> npt.NDArray[np.float64]:
        """Return what the map's rows (axis 0) or columns (axis 1) look at, (cells,), as shares of the image."""
        low, high = self.box[axis], self.box[axis + 2]
        return low + (high - low) * ((np.arange(cells) + 0.5) / cells + self.shift[axis])

    def centres(self, rows: int, columns: int) -> Floats:
        """Return what every cell looks at, (rows * columns, 2) float32, row by row."""
        grid = np.meshgrid(self.along(rows, 0), self.along(columns, 1), indexing="ij")
        return np.stack(grid, axis=-1).reshape(-1, 2).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Region:
    r"""The largest connected area above the threshold.

    Attributes
    ----------
    outline
        (P, 2) float64, its convex outline: column and row in pixels, 0\0 the outer corner of the first pixel
        (as SCOORD, PS3.3 section C.18.6.1.2); clockwise, the first point not repeated.
    area
        Share of the image, in [0, 1].
    """

    outline: npt.NDArray[np.float64]
    area: float


@dataclass(frozen=True, slots=True)
class Saliency:
    """Where an image lies far from normal.

    Attributes
    ----------
    heat
        (H, W) float32 in [0, 100], in the image's own pixels: the share of places in held-out normals that lie
        nearer to the bank; NaN where no view looks.
    above
        (H, W) bool: where the distance is above the threshold, which at most `false_positive_rate` of the held-out
        normals exceed anywhere.
    peak
        Row and column of the farthest place, pixels.
    peak_percentile
        Share of held-out normals (percent) in which no place lies as far as this image's farthest.
    region
        Of `above`; None where nothing is.
    method
        What was measured, in words.
    """

    heat: Floats
    above: npt.NDArray[np.bool_]
    peak: tuple[int, int]
    peak_percentile: float
    false_positive_rate: float
    region: Region | None
    method: str = METHOD


def explain(
    grey: Grey, patches: PatchBank, backbone: Backbone, preprocessing: Preprocessing, false_positive_rate: float
) -> Saliency:
    """Return where an image lies far from normal.

    Parameters
    ----------
    grey
        (H, W) float32 in [0, 1], made with the bank's window and rescale.
    false_positive_rate
        Share of normals in which a region may be found.

    Raises
    ------
    BankError
        If the patches were made from other stages than the backbone's.
    """
    if backbone.map_stage != patches.stage:
        raise BankError(
            f"patches are of {patches.stage}; {backbone.name} gives {backbone.map_stage or 'no map'}"
        )
    height, width = grey.shape
    field = distance_field(grey, patches, backbone, preprocessing)
    distances = resample(field, height, width)
    return among_places(distances, float(np.nanmax(field)), patches, false_positive_rate)


def among_places(
    distances: Floats, peak: float, scale: HeatScale, false_positive_rate: float, method: str = METHOD
) -> Saliency:
    """Return what the distances of an image's places mean among those of normals.

    Parameters
    ----------
    distances
        (H, W) float32, in the image's own pixels; NaN where nothing was measured.
    peak
        The largest one, before it was brought to the image's pixels.
    """
    above = distances > np.float32(scale.peak_threshold(false_positive_rate))
    row, column = np.unravel_index(int(np.nanargmax(distances)), distances.shape)
    return Saliency(
        heat=np.where(np.isnan(distances), np.float32(np.nan), scale.percentile(distances)),
        above=above,
        peak=(int(row), int(column)),
        peak_percentile=scale.peak_percentile(peak),
        false_positive_rate=false_positive_rate,
        region=find_region(above),
        method=method,
    )


def distance_field(grey: Grey, patches: PatchBank, backbone: Backbone, preprocessing: Preprocessing) -> Floats:
    """Return the image's distances on a grid over the whole image, (FIELD, FIELD) float32.

    Where several views look at a place it is their mean; NaN where none does.
    """
    places, (rows, columns), looks = see(grey, patches.views, patches.shift, backbone, preprocessing)
    maps = patches.distances(places).reshape(len(looks), rows, columns)
    return lay_over(maps, looks)


def see(
    grey: Grey,
    views: tuple[str, ...],
    shift: tuple[float, float],
    backbone: Backbone,
    preprocessing: Preprocessing,
) -> tuple[Places, tuple[int, int], list[Look]]:
    """Return what the backbone sees at the places of an image.

    Parameters
    ----------
    shift
        Of the backbone's map; see `feature_maps.measure_shift`.

    Returns
    -------
    places : Places
        View by view, row by row; a mirrored view is turned back first, so columns run as in the image.
    grid : tuple of int
        Rows and columns of one view's places.
    looks : list of Look
        Where each view looks.
    """
    size, short = preprocessing.size, preprocessing.resize_short
    cut = make_views(grey, views, size, short)
    maps = backbone.embed_map(to_batch(cut, preprocessing.mean, preprocessing.std))
    looks = []
    for at, view in enumerate(views):
        mirrored = view.endswith("-flip")
        if mirrored:
            maps[at] = maps[at, :, :, ::-1].copy()
        box = view_box(view, grey.shape[0], grey.shape[1], size, short)
        looks.append(Look(box, (shift[0], -shift[1] if mirrored else shift[1])))
    rows, columns = maps.shape[2:]
    positions = [look.centres(rows, columns) for look in looks]
    return Places(patches_of(maps), np.concatenate(positions)), (rows, columns), looks


def lay_over(maps: Floats, looks: list[Look], side: int = FIELD) -> Floats:
    """Return the mean of the views' maps (A, h, w), each put where it looks; (side, side), NaN elsewhere."""
    total, seen = np.zeros((side, side)), np.zeros((side, side))
    points = (np.arange(side) + 0.5) / side
    for values, look in zip(maps, looks, strict=True):
        top, left, bottom, right = look.box
        down = _weights(points, look.along(values.shape[0], 0))
        across = _weights(points, look.along(values.shape[1], 1))
        inside = np.outer((points >= top) & (points <= bottom), (points >= left) & (points <= right))
        total += np.where(inside, down @ values @ across.T, 0.0)
        seen += inside
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan).astype(np.float32)


def resample(field: Floats, height: int, width: int) -> Floats:
    """Return a field over the whole image in its pixels, (height, width) float32; bilinear, NaN stays NaN."""
    known = ~np.isnan(field)
    if known.all():
        return _bilinear(field.astype(np.float32), height, width)
    values = _bilinear(np.where(known, field, 0.0).astype(np.float32), height, width)
    share = _bilinear(known.astype(np.float32), height, width)
    return np.where(share > 0, values / np.where(share > 0, share, 1.0), np.nan).astype(np.float32)


def _bilinear(field: Floats, height: int, width: int) -> Floats:
    """Return a field without NaN at the centres of (height, width) pixels, one axis after the other."""
    rows, columns = field.shape
    above, below, down = _between((np.arange(height) + 0.5) / height, (np.arange(rows) + 0.5) / rows)
    left, right, across = _between((np.arange(width) + 0.5) / width, (np.arange(columns) + 0.5) / columns)
    narrow = field[:, left] * (1.0 - across) + field[:, right] * across
    down = down[:, None]
    return np.asarray(narrow[above] * (1.0 - down) + narrow[below] * down, dtype=np.float32)


def find_region(above: npt.NDArray[np.bool_]) -> Region | None:
    """Return the largest connected area (edges or corners touch) of a mask (H, W), or None if it is empty."""
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    mask = labels == 1 + int(sizes.argmax())
    return Region(convex_outline(mask), float(sizes.max() / above.size))


def convex_outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the corners of the convex hull of a mask's pixels, (P, 2): column, row; clockwise as displayed."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = mask[rows].argmax(axis=1), mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    corners = {
        (float(x), float(y + dy))
        for y, a, b in zip(rows, first, last, strict=True)
        for x in (a, b)
        for dy in (0, 1)
    }
    points = sorted(corners)
    return np.array(_half_hull(points) + _half_hull(points[::-1]), dtype=np.float64)


def _half_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return one side of the hull without its last point (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (y - hull[-2][1]) <= (
            hull[-1][1] - hull[-2][1]
        ) * (x - hull[-2][0]):
            hull.pop()
        hull.append((x, y))
    return hull[:-1]


def _weights(points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return linear interpolation from evenly spaced centres to points, (points, centres); rows sum to 1.

    Beyond the outermost centres the outermost counts.
    """
    weights = np.zeros((len(points), len(centres)))
    before, after, share = _between(points, centres)
    np.add.at(weights, (np.arange(len(points)), before), 1.0 - share)
    np.add.at(weights, (np.arange(len(points)), after), share)
    return weights


def _between(
    points: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return the centres before and after each point, and how far on the way it is, in [0, 1] float32."""
    step = centres[1] - centres[0] if len(centres) > 1 else 1.0
    at = np.clip((points - centres[0]) / step, 0.0, len(centres) - 1.0)
    before = np.floor(at).astype(np.intp)
    after = np.minimum(before + 1, len(centres) - 1)
    return before, after, (at - before).astype(np.float32)
