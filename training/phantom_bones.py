"""The skeleton of a frontal chest as thickness of bone.

Owns its shapes. May not know of air, exposure or lesions.
"""

from __future__ import annotations

import math

import numpy as np

from training.phantom_canvas import Array, Canvas, Points, curve, ellipse
from training.phantom_person import Person


def vertebra_height(number: float) -> float:
    """Return the height of the centre of thoracic vertebra `number` (1 to 12; 13 is L1), cm from the top."""
    n = number - 1.0
    return 4.6 + 2.2 * n + 0.03 * n * n


def rib(person: Person, side: int, number: int) -> Points:
    """Return a rib's centre line from the spine round the side to the front, (64, 2), cm.

    The first half of the points is the posterior rib. `side` is +1 for the patient's left.
    """
    start = vertebra_height(number) + 0.1
    drop = np.interp(number, [1, 2, 4, 6, 8, 10], [3.6, 6.2, 9.2, 10.8, 10.4, 7.5]) * person.slope
    last = np.interp(number, [1, 2, 6, 8, 10], [0.86, 0.88, 0.84, 0.74, 0.58]) * math.pi
    front = np.interp(number, [1, 2, 4, 6, 8, 10], [2.2, 2.6, 3.2, 5.0, 8.0, 11.0])
    phi = np.linspace(0.0, last, 64)
    fall = 0.7 * (1.0 - np.cos(phi)) / 2.0 + 0.3 * phi / math.pi
    y = start + drop * fall - 0.55 * np.sin(np.minimum(2.0 * phi, math.pi)) * (number > 1)
    side_y = start + drop * 0.5
    reach = float(person.wall(side_y)) + 0.25
    near = np.where(phi < math.pi / 2, 1.3, front)
    x = near + (reach - near) * np.sin(phi) ** 0.9
    x = x * side + person.spine(start) * (phi < math.pi / 2)
    x = x + person.turn * np.clip(phi / math.pi - 0.5, 0.0, 0.5)
    return np.stack([x, y], axis=1)


def ribs(canvas: Canvas, person: Person, target: Array) -> None:
    """Add ten pairs of ribs."""
    for side in (-1, 1):
        for number in range(1, 11):
            path = rib(person, side, number)
            split = int(np.argmax(path[:, 0] * side))
            back, front = path[: split + 1], path[split:]
            width = 0.46 + 0.016 * number
            girth = width * np.linspace(0.88, 1.05, len(back))
            canvas.tube(target, back, girth, np.linspace(0.95, 0.86, len(back)) * person.bone, hollow=0.52)
            girth = width * np.linspace(1.05, 1.3, len(front))
            fade = 0.86 * np.linspace(1.0, 0.0, len(front)) ** 0.8
            canvas.tube(target, front, girth, fade * person.bone, hollow=0.52)


def spine(canvas: Canvas, person: Person, target: Array) -> None:
    """Add vertebral bodies with pedicles, spinous and transverse processes, from C5 to L4."""
    bodies: list[Points] = []
    pedicles: list[Points] = []
    for number in np.arange(-2.0, 17.0):
        y = vertebra_height(number)
        pitch = vertebra_height(number + 1) - y
        x = float(person.spine(y))
        half = float(np.interp(number, [-1, 1, 5, 12, 14], [1.05, 1.3, 1.32, 1.85, 2.1]))
        high = pitch * 0.41
        waist = 0.9
        body = curve(
            [
                (-half, -high),
                (-half * waist, 0.0),
                (-half, high),
                (half, high),
                (half * waist, 0.0),
                (half, -high),
                (-half, -high),
            ],
            36,
        ) + np.array([x, y])
        bodies.append(body)
        for side in (-1, 1):
            pedicles.append(ellipse((x + side * half * 0.62, y - high * 0.35), (0.27, 0.42)))
            if number >= 1:
                tip = [(x + side * half * 0.8, y - high * 0.2), (x + side * (half + 1.25), y - high * 0.55)]
                canvas.tube(
                    target, curve(tip, 6), np.array([0.5, 0.48, 0.45, 0.42, 0.42, 0.36]), 0.5 * person.bone
                )
        process = curve([(x - person.turn * 0.4, y + high * 0.2), (x - person.turn * 0.5, y + high * 1.25)], 6)
        canvas.tube(target, process, np.linspace(0.2, 0.4, 6), 0.8 * person.bone, hollow=0.2)
    target += canvas.fill(*bodies) * np.float32(0.85 * person.bone)
    target += canvas.fill(*pedicles) * np.float32(0.5 * person.bone)


def clavicles(canvas: Canvas, person: Person, target: Array) -> None:
    """Add both clavicles, an S from the sternum over the apex to the shoulder, and the manubrium's edge."""
    for side in (-1, 1):
        x0 = 1.7 * side + person.turn
        path = curve(
            [
                (x0, 9.3),
                (x0 + 2.9 * side, 8.8),
                (x0 + 6.2 * side, 8.0),
                (x0 + 9.6 * side * person.width, 6.7),
                (x0 + 13.0 * side * person.width, 6.2),
                (x0 + 14.6 * side * person.width, 6.5),
            ],
            40,
        )
        width = np.interp(
            np.linspace(0, 1, 40), [0, 0.03, 0.14, 0.5, 0.9, 1], [0.6, 0.95, 0.7, 0.58, 0.75, 0.3]
        )
        canvas.tube(target, path, width, 1.0 * person.bone, hollow=0.45)


def shoulders(canvas: Canvas, person: Person, target: Array) -> None:
    """Add scapulae (turned outward, as positioning for a PA chest asks) and the humeral heads."""
    for side in (-1, 1):
        out = person.wall(16.0) + 0.6 + person.arms

        def place(points: list[tuple[float, float]], side: int = side, out: float = float(out)) -> Points:
            return np.array([((out + px) * side, py) for px, py in points])

        blade = place(
            [
                (-2.2, 8.4),
                (-1.2, 13.0),
                (0.2, 17.5),
                (1.0, 20.0),
                (1.6, 20.3),
                (2.3, 17.5),
                (3.2, 13.5),
                (4.3, 10.0),
                (3.6, 7.4),
                (0.4, 7.0),
            ]
        )
        outline = curve([*map(tuple, blade), tuple(blade[0])], 80)
        target += canvas.fill(outline) * np.float32(0.3 * person.bone)
        canvas.tube(target, outline, 0.2, 0.22 * person.bone)
        ridge = curve([*map(tuple, place([(-1.7, 9.8), (1.6, 7.7), (5.6, 5.6)]))], 20)
        canvas.tube(target, ridge, np.linspace(0.22, 0.55, 20), 0.6 * person.bone)
        shaft = curve([*map(tuple, place([(5.9, 6.6), (6.2, 8.0), (6.8, 11.5), (7.6, 14.5), (8.6, 22.0)]))], 40)
        girth = np.interp(
            np.linspace(0, 1, 40), [0, 0.05, 0.12, 0.22, 0.38, 1.0], [0.9, 1.7, 2.2, 2.1, 1.45, 1.2]
        )
        canvas.tube(target, shaft, girth, 1.5 * person.bone, hollow=0.3)


def skeleton(canvas: Canvas, person: Person) -> Array:
    """Return the thickness of bone over the field, (H, W) float32, cm, slightly softened."""
    bones = canvas.zeros()
    ribs(canvas, person, bones)
    back = canvas.zeros()
    spine(canvas, person, back)
    bones += canvas.smooth(back, 0.09)
    clavicles(canvas, person, bones)
    shoulders(canvas, person, bones)
    return canvas.smooth(bones, 0.05)
