"""Who is X-rayed: the numbers in which one normal adult, one positioning and one exposure differ from the next.

Owns the normal variation. May not draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MEAN_WALL = (
    (5.0, 2.8),
    (6.0, 6.0),
    (8.0, 8.5),
    (12.0, 10.9),
    (18.0, 12.7),
    (25.0, 13.5),
    (32.0, 13.8),
    (44.0, 13.9),
)
"""Half width of the inner thorax against height, cm."""


@dataclass(frozen=True, slots=True)
class Person:
    """One adult in front of one detector. Lengths in cm, angles in radians, factors about 1.

    Attributes
    ----------
    female
        Draws breast shadows.
    width
        Factor on the thorax's width.
    inspiration
        Displacement of the diaphragm; positive is a deeper breath (lower domes).
    fat
        Thickness of the soft tissue outside the ribs at the side.
    chest
        Water-equivalent thickness of the trunk at its middle.
    slope
        Factor on how far each rib falls from back to front.
    heart
        Factor on the heart's width.
    aorta
        Factor on the aortic knob.
    bend
        Sideways bend of the spine (scoliosis), amplitude.
    turn
        Displacement of what lies in front against the spine (rotation about the long axis).
    bone
        Factor on bone density.
    bubble
        Air in the stomach, factor; 0 for none.
    markings
        Factor on vessels and lung texture.
    tilt, shift, zoom
        Positioning, see `Canvas`.
    kappa
        Attenuation of water, 1/cm, at the tube voltage used.
    scatter
        Scatter to primary ratio after the grid.
    photons
        Detected quanta per pixel of 0.42 mm in the unattenuated beam.
    level, contrast, local
        Display: thickness shown at mid grey (cm), slope, and share of large-scale contrast removed.
    """

    female: bool
    width: float
    inspiration: float
    fat: float
    chest: float
    slope: float
    heart: float
    aorta: float
    bend: float
    turn: float
    bone: float
    bubble: float
    markings: float
    arms: float
    dome: float
    tilt: float
    shift: tuple[float, float]
    zoom: float
    kappa: float
    scatter: float
    photons: float
    level: float
    contrast: float
    local: float

    def wall(self, y: np.ndarray | float) -> np.ndarray:
        """Return the inner thorax's half width at height `y`, cm."""
        heights, widths = np.array(_MEAN_WALL).T
        return np.asarray(np.interp(y, heights, widths) * self.width)

    def spine(self, y: np.ndarray | float) -> np.ndarray:
        """Return the x of the spine's midline at height `y`, cm."""
        return np.asarray(self.bend * np.sin((np.asarray(y) - 4.0) / 30.0 * 2.0 * np.pi))


def person(seed: int) -> Person:
    """Return the adult, positioning and exposure of `seed`."""
    rng = np.random.default_rng([seed, 1])

    def spread(mean: float, deviation: float, limit: float = 1.8) -> float:
        return float(mean + deviation * np.clip(rng.standard_normal(), -limit, limit))

    female = bool(rng.random() < 0.5)
    habitus = spread(0.0, 1.0)
    return Person(
        female=female,
        width=spread(0.95 if female else 1.0, 0.03) + 0.012 * habitus,
        inspiration=spread(0.0, 0.8) - 0.35 * habitus,
        fat=max(0.9, spread(2.0, 0.35) + 0.65 * habitus),
        chest=spread(18.5 if female else 20.0, 0.9) + 1.3 * habitus,
        slope=spread(1.0, 0.07) - 0.03 * habitus,
        heart=spread(1.0, 0.05) + 0.02 * habitus,
        aorta=spread(1.0, 0.12),
        bend=spread(0.0, 0.22),
        turn=spread(0.0, 0.3),
        bone=spread(1.0, 0.1),
        bubble=float(rng.random() < 0.75) * spread(1.0, 0.25),
        markings=spread(1.0, 0.13),
        arms=spread(0.0, 0.45),
        dome=spread(0.0, 0.35),
        tilt=spread(0.0, 0.018),
        shift=(spread(0.0, 0.45), spread(0.3, 0.5)),
        zoom=spread(1.03, 0.022),
        kappa=spread(0.195, 0.008),
        scatter=spread(0.28, 0.05),
        photons=spread(9000.0, 2200.0),
        level=spread(10.6, 0.4),
        contrast=spread(1.0, 0.07),
        local=spread(0.5, 0.05),
    )
