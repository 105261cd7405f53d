"""What fills the chest: airways, stomach bubble, hila and the branching vessels of the lungs.

Owns their shapes and thicknesses. May not know of exposure, lesions or files.
"""

from __future__ import annotations

import math

import numpy as np

from training.phantom_anatomy import dome
from training.phantom_canvas import Array, Canvas, Points, curve, ellipse
from training.phantom_person import Person


def airways(canvas: Canvas, person: Person) -> Array:
    """Return the air in trachea, main bronchi, stomach and bowel, (H, W) float32, cm."""
    left, right, air = canvas.zeros(), canvas.zeros(), canvas.zeros()
    shift = 0.55 * person.turn
    trachea = curve(
        [(0.0 + shift, -6.0), (shift, 6.0), (-0.25 + shift, 11.0), (-0.45 + shift, 13.5), (-0.3 + shift, 15.4)],
        40,
    )
    canvas.tube(air, trachea, 0.92, 2.5)
    canvas.tube(
        right,
        curve([(-0.3 + shift, 15.0), (-1.6, 17.0), (-3.2, 18.8), (-4.1, 20.8)], 24),
        np.linspace(0.7, 0.4, 24),
        np.linspace(1.5, 0.3, 24),
    )
    canvas.tube(
        left,
        curve([(0.0 + shift, 15.1), (1.8, 16.9), (3.9, 18.4), (5.0, 19.9)], 24),
        np.linspace(0.6, 0.36, 24),
        np.linspace(1.4, 0.3, 24),
    )
    air = np.maximum(air, np.maximum(left, right))
    if person.bubble > 0.0:
        top = float(dome(person, 1)[22, 1])
        size = person.bubble
        bubble = ellipse((6.4, top + 0.75 + 1.5 * size), (2.5 * size, 1.5 * size), -0.15)
        inside = canvas.fill(bubble)
        air += canvas.smooth(inside, 0.12) * np.clip(canvas.depth(inside) * 2.6, 0.6, 3.4)
    return air


def _branch(
    rng: np.random.Generator,
    start: Points,
    angle: float,
    radius: float,
    length: float,
    lines: list[tuple[Points, float]],
) -> None:
    """Grow one vessel and its branches; the thin ones come first so that the thick lie over them."""
    if radius < 0.036 or length < 0.5:
        return
    sway = rng.standard_normal(6)
    wave = np.cumsum(0.09 * sway[:5]) + 0.03 * sway[5] * np.arange(5)
    steps = length / 5 * np.stack([np.cos(angle + wave), np.sin(angle + wave)], axis=1)
    path = np.concatenate([start[None], start + np.cumsum(steps, axis=0)])
    end = angle + float(wave[-1])
    u = rng.random(9).tolist()
    fork = 0.22 + 0.28 * u[0]
    wide = end + fork * (0.35 + 0.45 * u[1])
    _branch(rng, path[-1], wide, radius * (0.66 + 0.2 * u[2]), length * (0.66 + 0.24 * u[3]), lines)
    _branch(rng, path[-1], end - fork, radius * (0.56 + 0.24 * u[4]), length * (0.6 + 0.25 * u[5]), lines)
    if u[6] < 0.6:
        turn = (0.5 + 0.5 * u[7]) * (1.0 if u[6] < 0.3 else -1.0)
        _branch(rng, path[3], end + turn, radius * (0.4 + 0.2 * u[8]), length * (0.5 + 0.25 * u[7]), lines)
    lines.append((path, radius))


def vessels(canvas: Canvas, person: Person, seed: int) -> Array:
    """Return the thickness of hila and branching lung vessels, (H, W) float32, cm."""
    rng = np.random.default_rng([seed, 2])
    lines: list[tuple[Points, float]] = []
    hila = canvas.zeros()
    for side in (-1, 1):
        root = np.array([side * 3.9 + 0.5 * person.turn, 18.6 if side < 0 else 17.7])
        for direction in np.array([-1.42, -1.0, -0.55, -0.15, 0.22, 0.52, 0.8, 1.05, 1.3]):
            aim = direction + rng.normal(0.0, 0.08)
            angle = aim if side > 0 else math.pi - aim
            where = root + np.array(
                [side * rng.uniform(0.0, 0.7), rng.uniform(-0.9, 1.3) + 0.9 * math.sin(aim)]
            )
            big = 0.30 if aim > 0.3 else 0.24
            _branch(rng, where, angle, big * rng.uniform(0.85, 1.15), rng.uniform(2.6, 3.4), lines)
        x, y = float(root[0]), float(root[1])
        trunk_line = curve(
            [
                (x + side * -0.5, y - 0.9),
                (x + side * 0.5, y + 0.3),
                (x + side * 0.8, y + 2.6),
                (x + side * 0.5, y + 4.6),
            ],
            20,
        )
        canvas.tube(hila, trunk_line, np.linspace(0.85, 0.45, 20), np.linspace(1.5, 0.7, 20))
        upper = curve(
            [
                (x + side * -0.2, y + 0.3),
                (x + side * 0.9, y - 1.2),
                (x + side * 1.5, y - 3.0),
            ],
            16,
        )
        canvas.tube(hila, upper, np.linspace(0.62, 0.3, 16), np.linspace(1.0, 0.3, 16))
    tree = canvas.smooth(canvas.strokes(lines), 0.055)
    texture = rng.standard_normal((128, 108)).astype(np.float32)
    grain = canvas.smooth(_stretch(canvas, texture), 0.12)
    return np.asarray(
        (1.25 * tree + canvas.smooth(hila, 0.2) + 0.16 * grain) * np.float32(person.markings), dtype=np.float32
    )


def _stretch(canvas: Canvas, field: Array) -> Array:
    step = max(1, round(canvas.shape[0] / field.shape[0]))
    rows, columns = -(-canvas.shape[0] // step), -(-canvas.shape[1] // step)
    tiled = np.tile(field, (rows // field.shape[0] + 1, columns // field.shape[1] + 1))
    return canvas.grow(tiled[:rows, :columns], step)
