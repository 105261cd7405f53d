"""The soft tissue of a frontal chest: trunk, thoracic cavity, heart and mediastinum.

Owns their shapes and thicknesses. May not know of exposure, lesions or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.phantom_canvas import Array, Canvas, Points, curve
from training.phantom_person import Person

AIR = 0.76
"""Share of water's attenuation that inflated lung lacks."""


@dataclass(frozen=True, slots=True)
class Chest:
    """The maps a lesion can change, each (H, W) float32, cm.

    Attributes
    ----------
    rest
        Water-equivalent thickness of all that is not lung: trunk, bones, airways' absence.
    lung
        Depth of aerated lung were there no heart and no mediastinum.
    depth
        Distance to the cavity's edge.
    centre
        Share of `lung` that heart and mediastinum take, [0, 1].
    vessels
        Thickness of vessels and hila.
    """

    rest: Array
    lung: Array
    depth: Array
    centre: Array
    vessels: Array


def dome(person: Person, side: int) -> Points:
    """Return the upper border of a hemidiaphragm from the costophrenic angle to the midline, (40, 2), cm."""
    base = 30.4 + person.inspiration + (1.15 + person.dome if side > 0 else 0.0)
    angle = base + 4.2
    reach = float(person.wall(angle))
    steps = [
        (1.0, angle),
        (0.955, base + 2.9),
        (0.83, base + 1.05),
        (0.62, base + 0.1),
        (0.46, base),
        (0.27, base + 0.55),
        (0.0, base + 2.0),
    ]
    return curve([(side * reach * f, y) for f, y in steps], 40)


def cavity(person: Person, side: int) -> Points:
    """Return one lung's outline including what lies behind the heart, closed at the midline, (N, 2), cm."""
    floor = dome(person, side)
    heights = np.linspace(6.2, floor[0, 1] - 0.2, 60)
    wall = np.stack([side * person.wall(heights), heights], axis=1)
    apex = curve(
        [(0.9 * side, 8.0), (1.6 * side, 5.9), (3.3 * side, 5.05), (4.9 * side, 5.55), tuple(wall[0])], 24
    )
    soft = curve([tuple(apex[-4]), tuple(wall[2]), *map(tuple, wall[6::6])], 60)
    return np.concatenate([[[0.0, 8.0]], apex[:-4], soft, floor])


def silhouette(person: Person, heart: float = 1.0) -> tuple[Points, Points, Points]:
    """Return the outlines of heart, aortic arch and upper mediastinum, each (N, 2), cm.

    Parameters
    ----------
    heart
        Factor on the heart's width beside the person's own.
    """
    f = person.heart * heart * person.width
    right, left = 1.0 + 0.55 * (f - 1.0), 1.0 + 1.3 * (f - 1.0)
    low = 31.2 + 0.8 * person.inspiration + 0.9 * (f - 1.0)
    lift = 2.2 * (f - 1.0)
    heart_line = curve(
        [
            (0.0, 16.0),
            (3.0, 17.1),
            (4.1 * left**0.3, 18.7),
            (5.9 * left, 21.6 - lift),
            (7.9 * left, 25.0 - lift),
            (8.7 * left, 28.2 - 0.5 * lift),
            (8.2 * left, 30.9),
            (5.6 * left, low + 2.6),
            (0.0, low + 3.2),
            (-3.3 * right, low + 2.2),
            (-4.5 * right, low - 3.0),
            (-4.75 * right, 25.6),
            (-4.2 * right, 22.4),
            (-3.0, 19.0),
            (0.0, 16.0),
        ],
        120,
    ) + np.array([person.turn, 0.0])
    knob = 1.0 + 0.5 * (person.aorta - 1.0)
    arch = curve(
        [
            (-1.2, 11.2),
            (1.5, 11.1),
            (2.9 * knob, 11.9),
            (3.7 * knob, 13.4),
            (3.3 * knob, 14.9),
            (2.55, 15.9),
            (2.9, 17.2),
            (2.6, 19.5),
            (-1.2, 19.5),
            (-1.2, 11.2),
        ],
        60,
    ) + np.array([0.6 * person.turn, 0.0])
    neck = curve([(1.9, 3.0), (2.3, 8.0), (2.15, 11.5), (2.0, 20.0)], 20)
    cava = curve([(-2.2, 3.0), (-2.5, 8.0), (-2.7, 12.5), (-2.95, 17.0), (-3.2, 21.0)], 20)
    upper = np.concatenate([neck, cava[::-1]]) + np.array([0.5 * person.turn, 0.0])
    return heart_line, arch, upper


def centre_share(canvas: Canvas, person: Person, heart: float = 1.0) -> Array:
    """Return the share of lung depth that heart and mediastinum take, (H, W) float32 in [0, 1]."""
    heart_line, arch, upper = silhouette(person, heart)
    core = canvas.smooth(canvas.fill(heart_line, arch, upper), 0.09)
    round_off = np.clip(canvas.depth(core) / np.float32(3.4), 0.0, 1.0)
    thick = np.sqrt(round_off * (2.0 - round_off))
    return np.asarray(core * (0.3 + 0.55 * thick), dtype=np.float32)


def trunk(canvas: Canvas, person: Person) -> Array:
    """Return the thickness of the body's soft tissue, (H, W) float32, cm."""
    p = person
    side_wall = float(p.wall(25.0)) + 0.9 + p.fat
    outline: list[Points] = []
    for side in (-1, 1):
        neck = 4.9 + 0.4 * p.fat
        outline.append(
            curve(
                [
                    (0.0, -6.0),
                    (side * neck, -6.0),
                    (side * (neck + 0.1), 1.0),
                    (side * (neck + 1.5), 2.9),
                    (side * 11.5, 4.1),
                    (side * (16.5 * p.width + p.arms), 5.2),
                    (side * (20.4 * p.width + p.arms), 8.8),
                    (side * (22.5 * p.width + p.arms), 18.0),
                    (side * (24.5 * p.width + p.arms), 30.0),
                ],
                60,
            )
        )
        inner = curve(
            [
                (side * (21.0 * p.width + p.arms), 30.0),
                (side * (18.9 * p.width + p.arms), 22.0),
                (side * (side_wall + 0.35), 16.6),
                (side * side_wall, 21.0),
                (side * (side_wall + 0.1), 33.0),
                (side * (side_wall + 0.7), 50.0),
                (0.0, 50.0),
            ],
            60,
        )
        outline[-1] = np.concatenate([outline[-1], inner])
    body = canvas.smooth(canvas.fill(*outline), 0.06)
    _, y = canvas.grid()
    edge = np.clip(canvas.depth(body) / np.float32(8.5), 0.0, 1.0)
    across = np.sqrt(edge * (2.0 - edge))
    along = np.interp(
        y[:, y.shape[1] // 2], [-2.0, 3.0, 8.0, 14.0, 30.0, 44.0], [0.62, 0.66, 0.8, 0.96, 1.0, 1.06]
    )
    tissue = body * (0.16 + 0.84 * across) * along[:, None].astype(np.float32) * np.float32(p.chest)
    return np.asarray(tissue + breasts(canvas, p), dtype=np.float32)


def breasts(canvas: Canvas, person: Person) -> Array:
    """Return the thickness of the breasts (or the pectoral folds), (H, W) float32, cm."""
    x, y = canvas.grid()
    added = canvas.zeros()
    size = 0.85 + 0.12 * (person.fat - 2.0)
    for side in (-1, 1):
        if person.female:
            cx, cy, rx, ry, thick = (
                7.6 * person.width,
                25.2 + 0.6 * person.fat,
                6.3 * size,
                6.6 * size,
                3.0 * size,
            )
        else:
            cx, cy, rx, ry, thick = 8.6 * person.width, 17.0, 6.6, 6.2, 1.3
        inside = 1.0 - ((x - side * cx) / rx) ** 2 - ((y - cy) / ry) ** 2
        hang = np.clip(0.55 + 0.45 * (y - cy) / np.float32(ry), 0.0, 1.0)
        added += np.clip(inside, 0.0, 1.0) ** np.float32(0.75) * hang * np.float32(thick)
    return canvas.smooth(added, 0.12)
