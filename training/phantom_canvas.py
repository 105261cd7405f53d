"""Drawing in centimetres: curves, filled shapes, tubes and distances on a pixel grid.

Owns the map from the body's centimetres to the image's pixels. May not know any anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import distance_transform_edt, gaussian_filter

Array = NDArray[np.float32]
Points = NDArray[np.float64]

FIELD_CM = (43.0, 35.0)
"""Height and width of a 35 x 43 cm detector."""

_OVERSAMPLE = 2
_COARSE_CM = 0.17


def curve(points: Sequence[tuple[float, float]], count: int = 48) -> Points:
    """Return a smooth curve through `points` that overshoots none of them.

    Parameters
    ----------
    points
        At least two (x, y) pairs.
    count
        Number of points on the curve.

    Returns
    -------
    ndarray, shape (count, 2), float64
    """
    nodes = np.asarray(points, dtype=np.float64)
    steps = np.maximum(np.hypot(*np.diff(nodes, axis=0).T), 1e-6)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(PchipInterpolator(along, nodes)(np.linspace(0.0, along[-1], count)), dtype=np.float64)


def ellipse(centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Points:
    """Return an ellipse's outline, shape (40, 2); `tilt` in radians."""
    angle = np.linspace(0.0, 2.0 * math.pi, 40, endpoint=False)
    x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
    c, s = math.cos(tilt), math.sin(tilt)
    return np.stack([centre[0] + c * x - s * y, centre[1] + s * x + c * y], axis=1)


class Canvas:
    """A pixel grid over a body's frontal plane.

    Body coordinates are centimetres: x grows towards the patient's left (the image's right), y downwards;
    (0, 0) is the top centre of a 35 x 43 cm field before it is moved, turned and scaled.

    Parameters
    ----------
    shape
        Rows and columns of the image, each at least 64.
    tilt
        In-plane rotation, radians.
    shift
        Displacement in x and y, cm.
    zoom
        Scale of the body; 1 shows 43 cm over the image's height (or 35 cm over its width, if that is tighter).
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        tilt: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
        zoom: float = 1.0,
    ) -> None:
        if len(shape) != 2 or min(shape) < 64:
            raise ValueError(f"shape is {shape}; a phantom needs at least 64 rows and 64 columns")
        self.shape = (int(shape[0]), int(shape[1]))
        self.field_per_cm = min(self.shape[0] / FIELD_CM[0], self.shape[1] / FIELD_CM[1])
        self.per_cm = self.field_per_cm * zoom
        c, s = math.cos(tilt), math.sin(tilt)
        self._turn = np.array([[c, -s], [s, c]])
        self._pivot = np.array([0.0, FIELD_CM[0] / 2])
        self._centre = np.array([self.shape[1] / 2, self.shape[0] / 2]) + np.asarray(shift) * self.per_cm

    def zeros(self) -> Array:
        """Return an empty map, shape (H, W), float32."""
        return np.zeros(self.shape, dtype=np.float32)

    def pixels(self, points: Points) -> Points:
        """Return pixel coordinates (column, row) of body points, shape (N, 2)."""
        return np.asarray((points - self._pivot) @ self._turn.T * self.per_cm + self._centre)

    def grid(self) -> tuple[Array, Array]:
        """Return the body coordinates x and y of every pixel centre, each (H, W) float32, cm."""
        column = (np.arange(self.shape[1], dtype=np.float32) + 0.5 - self._centre[0]) / self.per_cm
        row = (np.arange(self.shape[0], dtype=np.float32) + 0.5 - self._centre[1]) / self.per_cm
        t = self._turn.astype(np.float32)
        x = t[0, 0] * column[None, :].astype(np.float32) + t[1, 0] * row[:, None].astype(np.float32)
        y = t[0, 1] * column[None, :].astype(np.float32) + t[1, 1] * row[:, None].astype(np.float32)
        return x, y + np.float32(self._pivot[1])

    def fill(self, *outlines: Points) -> Array:
        """Return how much of each pixel the union of the outlines covers, (H, W) float32 in [0, 1]."""
        n = _OVERSAMPLE
        image = Image.new("L", (self.shape[1] * n, self.shape[0] * n))
        draw = ImageDraw.Draw(image)
        for outline in outlines:
            draw.polygon((self.pixels(outline) * n).ravel().tolist(), fill=255)
        return np.asarray(image.reduce(n), dtype=np.float32) / np.float32(255)

    def tube(
        self,
        target: Array,
        path: Points,
        radius: Points | float,
        amount: Points | float,
        *,
        hollow: float = 0.0,
    ) -> None:
        """Add the thickness of a bent tube to `target`.

        Parameters
        ----------
        target
            Map to add to, (H, W) float32.
        path
            Centre line, (N, 2), cm.
        radius
            Tube radius along the path, cm.
        amount
            Thickness to add on the axis of the solid tube, along the path, in the map's unit.
        hollow
            Share of the inside that is missing, [0, 1): cortical bone is brighter at its margins.
        """
        n = _OVERSAMPLE
        line = self.pixels(path) * n
        r = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(path),)) * self.per_cm * n
        peak = np.broadcast_to(np.asarray(amount, dtype=np.float64), (len(path),))
        top = float(peak.max())
        low = np.floor((line.min(axis=0) - r.max()) / n).astype(int) - 1
        high = np.ceil((line.max(axis=0) + r.max()) / n).astype(int) + 2
        low, high = np.maximum(low, 0), np.minimum(high, [self.shape[1], self.shape[0]])
        if top <= 0.0 or (high <= low).any():
            return
        tangent = np.gradient(line, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-9)[:, None]
        image = Image.new("L", ((high[0] - low[0]) * n, (high[1] - low[1]) * n))
        draw = ImageDraw.Draw(image)
        local = line - low * n
        for outer, inside in ((1.0, 0.9), (0.8, 0.68), (0.55, 0.4), (0.25, 0.0)):
            profile = math.sqrt(1.0 - inside**2) - hollow * math.sqrt(max(0.0, 1.0 - (inside / 0.85) ** 2))
            left, right = local + normal * (r * outer)[:, None], local - normal * (r * outer)[:, None]
            levels = np.rint(255.0 * profile * peak / top).astype(int)
            for k in range(len(path) - 1):
                quad = (*left[k], *left[k + 1], *right[k + 1], *right[k])
                draw.polygon(quad, fill=int(levels[k]))
        part = np.asarray(image.reduce(n), dtype=np.float32) * np.float32(top / 255.0)
        target[low[1] : high[1], low[0] : high[0]] += part

    def strokes(self, lines: Sequence[tuple[Points, float]]) -> Array:
        """Return thickness of thin round strokes, (path in cm, radius in cm); later ones lie over earlier ones.

        The value at a stroke is its diameter in cm.
        """
        top = max(radius for _, radius in lines) * 2.0
        image = Image.new("L", (self.shape[1], self.shape[0]))
        draw = ImageDraw.Draw(image)
        for path, radius in lines:
            width = radius * 2.0 * self.per_cm
            value = 255.0 * radius * 2.0 / top * min(1.0, width)
            xy = self.pixels(path).ravel().tolist()
            draw.line(xy, fill=round(value), width=max(1, round(width)), joint="curve")
        return np.asarray(image, dtype=np.float32) * np.float32(top / 255.0)

    def depth(self, coverage: Array) -> Array:
        """Return each pixel's distance to the shape's edge, (H, W) float32, cm; 0 outside."""
        step = max(1, round(_COARSE_CM * self.per_cm))
        inside = self.shrink(coverage, step) >= 0.5
        far = distance_transform_edt(np.pad(inside, 1, mode="edge"))[1:-1, 1:-1]
        even = gaussian_filter(np.maximum(far - 0.5, 0.0).astype(np.float32), 0.8, mode="nearest")
        coarse = even * np.float32(step / self.per_cm)
        return self.grow(coarse, step)

    def smooth(self, values: Array, sigma_cm: float) -> Array:
        """Return a Gaussian blur; wide ones are computed on a coarser grid."""
        sigma = sigma_cm * self.per_cm
        step = max(1, int(sigma / 3.0))
        if step == 1:
            return np.asarray(gaussian_filter(values, sigma, mode="nearest", truncate=3.0))
        blurred = gaussian_filter(self.shrink(values, step), sigma / step, mode="nearest", truncate=3.0)
        return self.grow(np.asarray(blurred), step)

    def shrink(self, values: Array, step: int) -> Array:
        """Return the map averaged over blocks of `step` pixels."""
        return np.asarray(Image.fromarray(values).reduce(step), dtype=np.float32)

    def grow(self, values: Array, step: int) -> Array:
        """Return a map that `shrink` made with the same `step`, brought back to the full grid."""
        image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        size = (self.shape[1], self.shape[0])
        box = (0.0, 0.0, min(image.width, size[0] / step), min(image.height, size[1] / step))
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box), dtype=np.float32)
