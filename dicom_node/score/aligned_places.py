"""Where a registered chest lies far from normal, for heat maps of aligned-knn banks; owns ``places.safetensors``.

The distance that a score sums up is taken apart again: at each place of the grid, the difference between the
chest's features and those of its nearest normals as the normals' subspace shows them. Unlike the score it counts what
lies in none of the subspace's directions too: a lesion no normal taught has its place there. Knows nothing of networks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from scipy.ndimage import map_coordinates

from dicom_node.domain.errors import BankError
from dicom_node.score.align import Placement
from dicom_node.score.heat_scale import LEVELS, HeatScale

FILE = "places.safetensors"

METHOD = "distance of places of the registered chest to its nearest normals' same places, as their subspace shows them"

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Places(HeatScale):
    """What distances the places of held-out normals have.

    Attributes
    ----------
    shift
        How far a map's cells look from where they lie, down and across, as shares of the network's input; see
        `feature_maps.measure_shift`.
    """

    shift: tuple[float, float]


def place_distances(vector: Floats, nearest: Floats, grid: int) -> Floats:
    """Return how far each place of a chest lies from the same place of normals, (grid, grid) float32.

    Parameters
    ----------
    vector
        (D,) float32, as from `aligned_maps.map_vectors`.
    nearest
        (k, D) float32: the nearest normals, as the subspace shows them; their mean is compared with.
    grid
        Rows and columns G; D is a multiple of G * G, place by place within each channel.

    Raises
    ------
    BankError
        If the vectors are no maps of that grid.
    """
    if len(vector) % (grid * grid):
        raise BankError(f"vectors of {len(vector)} numbers are no maps of {grid} x {grid} places")
    apart = (vector - nearest.mean(axis=0)).reshape(-1, grid, grid).astype(np.float64)
    return np.asarray(np.sqrt(np.square(apart).sum(axis=0)), dtype=np.float32)


def laid_back(
    field: Floats, placement: Placement, box: Box, shift: tuple[float, float], shape: tuple[int, int]
) -> Floats:
    """Return distances of the template's places in the image's own pixels, `shape` float32; NaN outside of the box.

    Parameters
    ----------
    field
        (G, G) over the box.
    placement
        How the image was laid over the template; see `align.register`.
    box
        Top, left, bottom, right in shares of the template.
    shift
        See `Places`.
    shape
        Rows and columns of the image.
    """
    to_right, to_bottom, wider, higher, turn = placement.position
    v, u = np.meshgrid(*(2 * (np.arange(size) + 0.5) / size - 1 for size in shape), indexing="ij")
    u, v = u - to_right, v - to_bottom
    across = (np.cos(turn) * u + np.sin(turn) * v) / np.exp(wider)
    down = (np.cos(turn) * v - np.sin(turn) * u) / np.exp(higher)
    top, left, bottom, right = box
    cells = []
    inside = np.ones(shape, dtype=np.bool_)
    for place, low, high, moved in ((down, top, bottom, shift[0]), (across, left, right, shift[1])):
        share = ((place + 1) / 2 - low) / (high - low)
        inside &= (share >= 0) & (share <= 1)
        cells.append((share - moved) * len(field) - 0.5)
    values = map_coordinates(field.astype(np.float64), cells, order=1, mode="nearest")
    return np.where(inside, values, np.nan).astype(np.float32)


def save_places(places: Places) -> bytes:
    """Return the content of ``places.safetensors``."""
    tensors = {"normal": places.normal, "peaks": places.peaks}
    return bytes(save_arrays(tensors, metadata={"shift": json.dumps(places.shift)}))


def load_places(content: bytes) -> Places:
    """Read it back.

    Raises
    ------
    BankError
        If the bytes are no such file, or its parts do not fit each other.
    """
    try:
        tensors = load_arrays(content)
        length = int.from_bytes(content[:8], "little")
        shift: Sequence[Any] = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["shift"])
        places = Places(tensors["normal"], tensors["peaks"], (float(shift[0]), float(shift[1])))
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BankError(f"{FILE} cannot be read: {error}") from error
    if places.normal.shape != LEVELS.shape or places.peaks.ndim != 1 or not len(places.peaks):
        raise BankError(f"{FILE}: the parts do not fit each other: {places.normal.shape}, {places.peaks.shape}")
    return places
