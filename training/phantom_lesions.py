"""What can be wrong with a phantom: opacity, nodule, effusion, cardiomegaly, each with a known place.

Owns the lesions' shapes. May not know of exposure or files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.phantom_anatomy import AIR, Chest, centre_share, dome
from training.phantom_canvas import Array, Canvas
from training.phantom_person import Person

_KINDS = {"opacity": 10, "nodule": 11, "effusion": 12, "cardiomegaly": 13}
_PLAIN = {"opacity": 2.6, "nodule": 1.5, "effusion": 2.4, "cardiomegaly": 1.45}
"""What strength 1 means in the lesions' own formulas: plain to see for anyone."""

_VISIBLE_CM = 0.6
"""Change of water-equivalent thickness from which a pixel belongs to the mask."""


def plant(
    canvas: Canvas, person: Person, chest: Chest, lesion: str, seed: int, strength: float
) -> tuple[Chest, NDArray[np.bool_]]:
    """Return the chest with the lesion in it, and the lesion's mask, (H, W) bool.

    Raises
    ------
    KeyError
        If `lesion` is none of the four.
    """
    rng = np.random.default_rng([seed, _KINDS[lesion]])
    strength = strength * _PLAIN[lesion]
    if lesion == "opacity":
        changed = replace(chest, lung=chest.lung * (1.0 - _opacity(canvas, person, chest, rng, strength)))
    elif lesion == "nodule":
        changed = replace(chest, rest=chest.rest + _nodule(canvas, person, rng, strength))
    elif lesion == "effusion":
        changed = replace(chest, lung=chest.lung * (1.0 - _effusion(canvas, person, rng, strength)))
    else:
        factor = 1.0 + rng.uniform(0.2, 0.31) * strength
        changed = replace(chest, centre=np.maximum(chest.centre, centre_share(canvas, person, factor)))
    gained = (changed.rest - chest.rest) + np.float32(AIR) * (
        chest.lung * (1.0 - chest.centre) - changed.lung * (1.0 - changed.centre)
    )
    return changed, np.asarray(gained > _VISIBLE_CM)


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _opacity(canvas: Canvas, person: Person, chest: Chest, rng: np.random.Generator, strength: float) -> Array:
    """Return the share of air lost to a patchy consolidation, (H, W) float32 in [0, 1]."""
    side = _side(rng)
    x, y = canvas.grid()
    height = rng.uniform(15.0, 27.0)
    across = rng.uniform(0.5, 0.68) * float(person.wall(height))
    if side > 0 and height > 19.0:
        across = max(across, 9.2 * person.heart * person.width)
    cloud = canvas.zeros()
    grow = strength**0.35
    for _ in range(7):
        cx, cy = side * (across + grow * rng.normal(0.0, 1.4)), height + grow * rng.normal(0.0, 2.0)
        rx, ry = rng.uniform(1.6, 3.3, 2) * grow
        lean = rng.normal(0.0, 0.35)
        u, v = x - np.float32(cx), y - np.float32(cy)
        cloud += np.exp(-((u + lean * v) ** 2) / np.float32(rx**2) - (v / np.float32(ry)) ** 2) * np.float32(
            rng.uniform(0.3, 0.6)
        )
    grain = canvas.smooth(rng.standard_normal(canvas.shape, dtype=np.float32), 0.45)
    cloud *= 1.0 + np.float32(0.1) * grain / max(float(grain.std()), 1e-6)
    edge = np.clip(chest.depth / np.float32(0.8), 0.0, 1.0)
    inside = np.where(x * side > 0.0, edge, np.float32(0.0))
    share = np.float32(0.92) * (1.0 - np.exp(np.float32(-0.62 * strength) * cloud))
    return np.asarray(share * inside, dtype=np.float32)


def _nodule(canvas: Canvas, person: Person, rng: np.random.Generator, strength: float) -> Array:
    """Return the thickness a round nodule adds, (H, W) float32, cm."""
    side = _side(rng)
    height = rng.uniform(13.0, 25.0)
    across = rng.uniform(0.55, 0.78) * float(person.wall(height))
    if side > 0 and height > 19.0:
        across = max(across, 9.6 * person.heart * person.width)
    radius = rng.uniform(1.15, 1.6) * strength**0.5
    x, y = canvas.grid()
    u, v = x - np.float32(side * across), y - np.float32(height)
    turn = np.arctan2(v, u)
    wobble = sum(rng.normal(0.0, 0.035) * np.cos(n * turn + rng.uniform(0.0, 6.28)) for n in (2, 3, 4, 5))
    far = np.hypot(u, v) / np.float32(radius) / (1.0 + wobble)
    ball = np.sqrt(np.clip(1.0 - far**2, 0.0, 1.0)) * np.float32(2.0 * radius * 0.92)
    return canvas.smooth(np.asarray(ball, dtype=np.float32), 0.11)


def _effusion(canvas: Canvas, person: Person, rng: np.random.Generator, strength: float) -> Array:
    """Return the share of air displaced by fluid with a meniscus, (H, W) float32 in [0, 1]."""
    side = _side(rng)
    x, y = canvas.grid()
    floor = float(dome(person, side)[14, 1])
    level = floor - rng.uniform(1.2, 3.4) * strength
    reach = person.wall(level)
    beside = np.maximum(np.float32(reach) - x * side, 0.0)
    medial = np.clip(x * side, 0.0, None)
    top = level - 4.2 * strength**0.5 * np.exp(-beside / 2.6) - 0.7 * np.exp(-medial / 2.0)
    below = np.clip((y - top.astype(np.float32)) / np.float32(2.8), 0.0, 1.0)
    share = below * below * (3.0 - 2.0 * below) * np.float32(0.95)
    return np.asarray(share * np.clip((x * side + 0.8) / np.float32(1.6), 0.0, 1.0), dtype=np.float32)
