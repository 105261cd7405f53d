"""Procedural frontal chest radiographs, with lesions whose place is known. Phantoms, not people.

Owns how a phantom is put together and how a detector sees it. The picture is computed as a radiograph comes
about: thickness of tissue along each ray, attenuation, scatter, quantum noise, logarithm, display curve.
May not know of DICOM or files. All randomness comes from the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.phantom_anatomy import AIR, Chest, cavity, centre_share, trunk
from training.phantom_bones import skeleton
from training.phantom_canvas import Array, Canvas
from training.phantom_lesions import plant
from training.phantom_lungs import airways, vessels
from training.phantom_person import Person, person

Lesion = Literal["opacity", "nodule", "effusion", "cardiomegaly"]
LESIONS: tuple[Lesion, ...] = get_args(Lesion)
SHAPE = (1024, 840)

_BONE = 1.55
"""Attenuation of bone against water at about 110 kV."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """One procedural chest radiograph.

    Attributes
    ----------
    image
        (H, W) float32 in [0, 1]; brighter is denser (as MONOCHROME2), the patient's left on the image's right.
    mask
        (H, W) bool: where the lesion is; all False without one.
    lesion
        What was planted, or None.
    seed
        Decides everything else about the person, the positioning and the exposure.
    strength
        Factor on the lesion's size or density.
    spacing
        Size of a pixel at the detector, mm.
    female
        Whether the person is drawn as a woman.
    """

    image: Array
    mask: NDArray[np.bool_]
    lesion: Lesion | None
    seed: int
    strength: float
    spacing: float
    female: bool


def make(
    seed: int,
    *,
    lesion: Lesion | None = None,
    shape: tuple[int, int] = SHAPE,
    strength: float = 1.0,
) -> Phantom:
    """Return the phantom of `seed`, with `lesion` planted if one is named.

    The same seed is the same person under the same exposure, with or without a lesion.

    Parameters
    ----------
    seed
        Any integer >= 0.
    lesion
        "opacity" (soft-edged consolidation), "nodule", "effusion" (pleural, with meniscus) or "cardiomegaly".
    shape
        Rows and columns, each at least 64; 1024 x 840 is a 35 x 43 cm detector at 0.42 mm.
    strength
        1 is plainly visible; above 0.

    Raises
    ------
    ValueError
        If `seed` is negative, `lesion` unknown, `strength` not positive or `shape` too small.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    if lesion is not None and lesion not in LESIONS:
        raise ValueError(f"lesion is {lesion!r}; it must be one of {', '.join(LESIONS)}")
    if not strength > 0.0:
        raise ValueError(f"strength is {strength}; it must be above 0")
    who = person(seed)
    canvas = Canvas(shape, tilt=who.tilt, shift=who.shift, zoom=who.zoom)
    chest = _chest(canvas, who, seed)
    planted = None if lesion is None else plant(canvas, who, chest, lesion, seed, strength)
    chest, mask = (chest, np.zeros(canvas.shape, dtype=np.bool_)) if planted is None else planted
    image = _expose(canvas, who, _thickness(chest), seed)
    return Phantom(image, mask, lesion, seed, strength, 10.0 / canvas.field_per_cm, who.female)


def _chest(canvas: Canvas, who: Person, seed: int) -> Chest:
    inside = canvas.smooth(canvas.fill(cavity(who, -1), cavity(who, 1)), 0.05)
    depth = canvas.depth(inside)
    _, y = canvas.grid()
    round_off = np.clip(depth / np.float32(5.0), 0.0, 1.0)
    upright = np.interp(y[:, y.shape[1] // 2], [5.0, 12.0, 22.0, 36.0], [0.62, 0.8, 0.95, 1.0]).astype(
        np.float32
    )
    lung = inside * (0.30 + 0.70 * np.sqrt(round_off * (2.0 - round_off))) * upright[:, None]
    lung = lung * np.float32(0.78 * who.chest)
    rest = trunk(canvas, who) + np.float32(_BONE) * skeleton(canvas, who) - airways(canvas, who)
    return Chest(rest, lung, depth, centre_share(canvas, who), vessels(canvas, who, seed))


def _thickness(chest: Chest) -> Array:
    """Return water-equivalent thickness along each ray, (H, W) float32, cm."""
    air = chest.lung * (1.0 - chest.centre)
    aerated = np.clip(air / np.float32(5.0), 0.0, 1.0)
    return np.asarray(
        np.maximum(chest.rest - np.float32(AIR) * air + aerated * chest.vessels, 0.0), dtype=np.float32
    )


def _expose(canvas: Canvas, who: Person, thickness: Array, seed: int) -> Array:
    """Return what a digital detector shows of the thickness, (H, W) float32 in [0, 1]."""
    primary = np.exp(np.float32(-who.kappa) * canvas.smooth(thickness, 0.03))
    beam = primary + np.float32(who.scatter) * canvas.smooth(primary, 2.6)
    noise = np.random.default_rng([seed, 3]).standard_normal(canvas.shape, dtype=np.float32)
    quanta = np.float32(who.photons * (10.0 / canvas.field_per_cm / 0.42) ** 2)
    beam = np.maximum(
        beam + np.sqrt(beam / quanta) * canvas.smooth(noise, 0.03) * np.float32(1.2), np.float32(1e-4)
    )
    seen = -np.log(beam) / np.float32(who.kappa)
    wide = canvas.smooth(np.clip(seen, 2.0, 22.0), 3.2)
    fine = canvas.smooth(seen, 0.9)
    shown = seen - np.float32(who.local) * (wide - np.float32(who.level)) + np.float32(0.45) * (seen - fine)
    slope = np.float32(who.contrast * 0.42)
    grey = slope * (shown - np.float32(who.level))
    grey = np.where(grey > 0.0, np.log1p(np.maximum(grey, 0.0)) * np.float32(1.15), grey)
    return np.asarray(1.0 / (1.0 + np.exp(-grey)), dtype=np.float32)
