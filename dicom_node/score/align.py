"""Lays a chest over a template of normal chests: shift, two scales and a rotation, found by the picture alone.

Pure and deterministic: float64 throughout, a fixed number of steps, each image by itself whatever shares its
batch. Knows nothing of networks or banks; how a template comes about is for `training.template` to know.

An image that correlates with the template hardly more than noise does, or only at a position that no chest has,
was not registered: it stays as it lies (the identity), and its `Placement` says why. This is no check that an
image is a chest: a chest upside down correlates about as much as one full of disease, and is scored as found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d, conv2d, grid_sample, pad

from dicom_node.domain.errors import BankError

Floats = npt.NDArray[np.float64]
Grey = npt.NDArray[np.float32]

SIDE = 64
"""Rows and columns on which images are compared."""

SPREAD = (0.15, 0.15, 0.2, 0.2, 0.1)
"""How much shift across and down (shares of half the side), logarithms of the two scales, and rotation (radians)
usually differ; a weak pull towards the identity is measured in these."""

FARTHEST = 4.0
"""Times `SPREAD`: what lies beyond is no position of a chest, and the image was not registered."""

LEAST_LIKENESS = 0.25
"""Correlation with the template below which an image was not registered.

Measured on 224 normal chests of children: 0.71 and more; noise registered to their template: 0.07 to 0.26.
"""

LEVELS = ((3.0, 16), (1.5, 12), (0.7, 12))
"""Blur (pixels of the 64) and steps, coarse to fine."""

_PULL = 0.003
_NEIGHBOURHOOD = 10.0
_FLOOR = 4.0 / 255.0
_CLIP = 3.0
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Placement:
    """How an image was laid over the template.

    Attributes
    ----------
    position
        Shift across and down in shares of half the side, logarithm of the scale across and down, rotation in
        radians: where in the image each place of the template is found. All 0 is the identity.
    likeness
        Correlation with the template at that position, in [-1, 1].
    note
        Why the image stays as it lies, or "" where it was registered.
    """

    position: tuple[float, float, float, float, float]
    likeness: float
    note: str = ""


IDENTITY = (0.0, 0.0, 0.0, 0.0, 0.0)


def prepared(images: Grey) -> torch.Tensor:
    """Return what is compared: images (N, S, S) in [0, 1] at 64 x 64, each place relative to its surroundings.

    Grey values minus their local mean, over their local standard deviation, clipped at 3: (N, 1, 64, 64) float64.
    Neither brightness nor contrast of the exposure is left in it.
    """
    grey = torch.from_numpy(np.ascontiguousarray(images)).to(torch.float64)[:, None]
    small = adaptive_avg_pool2d(grey, SIDE)
    apart = small - blurred(small, _NEIGHBOURHOOD)
    deviation = blurred(apart * apart, _NEIGHBOURHOOD).sqrt() + _FLOOR
    return (apart / deviation).clamp(-_CLIP, _CLIP)


def register(images: Grey, template: npt.NDArray[np.floating]) -> list[Placement]:
    """Find where each image shows what the template shows.

    Maximises the correlation with the template minus a weak pull towards the identity, by Levenberg-Marquardt
    steps on three blurs.

    Parameters
    ----------
    images
        (N, S, S) float32 in [0, 1].
    template
        (64, 64), as from `training.template`.

    Raises
    ------
    BankError
        If the template is not 64 x 64.
    """
    if template.shape != (SIDE, SIDE):
        raise BankError(f"the template is {template.shape}; {SIDE, SIDE} is right")
    target = torch.from_numpy(np.asarray(template, dtype=np.float64))[None, None]
    found: list[Placement] = []
    for at in range(0, len(images), _BLOCK):
        seen = prepared(images[at : at + _BLOCK])
        positions = torch.zeros((len(seen), len(SPREAD)), dtype=torch.float64)
        likeness = torch.zeros(len(seen), dtype=torch.float64)
        for blur, steps in LEVELS:
            positions, likeness = climb(blurred(seen, blur), blurred(target, blur), positions, steps)
        found += [_judged(p, c) for p, c in zip(positions.numpy(), likeness.tolist(), strict=True)]
    return found


def climb(
    seen: torch.Tensor, target: torch.Tensor, positions: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take Levenberg-Marquardt steps, each image by itself; a step that makes it worse is taken back.

    Parameters
    ----------
    seen
        (N, 1, 64, 64) float64, blurred alike with `target`.
    target
        (1, 1, 64, 64) float64.
    positions
        (N, 5) float64, where to start.

    Returns
    -------
    positions : torch.Tensor
        (N, 5) float64.
    likeness : torch.Tensor
        (N,) float64, the correlation there.
    """
    weights = _window()
    goal = _standard(target.flatten(1), weights)
    slopes = torch.cat([seen, *_slopes(seen)], dim=1)
    damping = torch.full((len(seen), 1), 1e-2, dtype=torch.float64)
    cost, gradient, curvature, likeness = _cost(slopes, goal, weights, positions)
    for _ in range(steps):
        diagonal = torch.diagonal(curvature, dim1=1, dim2=2)
        damped = curvature + torch.diag_embed(diagonal * damping)
        moved = positions - torch.linalg.solve(damped, gradient[..., None])[..., 0]
        tried = _cost(slopes, goal, weights, moved)
        better = tried[0] < cost
        positions = torch.where(better[:, None], moved, positions)
        cost = torch.where(better, tried[0], cost)
        gradient = torch.where(better[:, None], tried[1], gradient)
        curvature = torch.where(better[:, None, None], tried[2], curvature)
        likeness = torch.where(better, tried[3], likeness)
        damping = torch.where(better[:, None], damping / 3, damping * 4).clamp(1e-6, 1e6)
    return positions, likeness


def warped(images: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Return images (N, C, S, S) as the template's places show them; beyond the border it goes on."""
    across, down, _ = _places(positions, *_axes(SIDE, (0.0, 0.0, 1.0, 1.0)))
    grid = torch.stack([across, down], dim=-1).to(images.dtype).view(len(images), SIDE, SIDE, 2)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def cut(image: Grey, placement: Placement, box: tuple[float, float, float, float], size: int) -> Grey:
    """Return the part of one image that lies under a box of the template.

    Parameters
    ----------
    image
        (S, S) float32 in [0, 1].
    box
        Top, left, bottom, right in shares of the template.
    size
        Side of the result, pixels.

    Returns
    -------
    numpy.ndarray
        (size, size) float32 in [0, 1]: its 1st to its 99th percentile stretched to that range.
    """
    position = torch.tensor([placement.position], dtype=torch.float64)
    across, down, _ = _places(position, *_axes(size, box))
    grid = torch.stack([across, down], dim=-1).view(1, size, size, 2)
    grey = torch.from_numpy(np.ascontiguousarray(image)).to(torch.float64)[None, None]
    out = grid_sample(grey, grid, padding_mode="border", align_corners=False)[0, 0].numpy()
    low, high = np.percentile(out, [1.0, 99.0])
    stretched: Grey = np.clip((out - low) / max(high - low, 2 * _FLOOR), 0.0, 1.0).astype(np.float32)
    return stretched


def blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Return (N, 1, H, W) convolved with a Gaussian of `sigma` pixels, cut off at 3 sigma; the border goes on."""
    radius = int(3 * sigma + 0.5)
    along = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-along * along / (2 * sigma * sigma))
    kernel = kernel / kernel.sum()
    wide = pad(images, (radius, radius, radius, radius), mode="replicate")
    return conv2d(conv2d(wide, kernel[None, None, None, :]), kernel[None, None, :, None])


def _judged(position: Floats, likeness: float) -> Placement:
    if not (np.isfinite(position).all() and np.isfinite(likeness)):
        return Placement(IDENTITY, 0.0, "nothing in it can be compared with the template")
    far = float(np.abs(position / np.array(SPREAD)).max())
    if likeness < LEAST_LIKENESS:
        return Placement(IDENTITY, likeness, f"its correlation with the template is {likeness:.2f}")
    if far > FARTHEST:
        return Placement(IDENTITY, likeness, "the best position found is none that a chest has")
    across, down, wider, higher, turn = position.tolist()
    return Placement((across, down, wider, higher, turn), likeness)


def _axes(size: int, box: tuple[float, float, float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the places (size * size,) across and down of a box, from -1 to 1 over the whole template."""
    top, left, bottom, right = box
    middle = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    down, across = torch.meshgrid(
        2 * (top + (bottom - top) * middle) - 1, 2 * (left + (right - left) * middle) - 1, indexing="ij"
    )
    return across.flatten(), down.flatten()


def _places(
    positions: torch.Tensor, across: torch.Tensor, down: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where in the image each place lies, (N, P) across and down, and how that moves, (N, 2, 5, P)."""
    to_right, to_bottom, wider, higher, turn = (column[:, None] for column in positions.T)
    cosine, sine, wide, high = turn.cos(), turn.sin(), wider.exp(), higher.exp()
    x1, x2 = wide * cosine * across, -high * sine * down
    y1, y2 = wide * sine * across, high * cosine * down
    one, none = torch.ones_like(x1), torch.zeros_like(x1)
    moves = torch.stack(
        [torch.stack([one, none, x1, x2, -y1 - y2], dim=1), torch.stack([none, one, y1, y2, x1 + x2], dim=1)],
        dim=1,
    )
    return x1 + x2 + to_right, y1 + y2 + to_bottom, moves


def _cost(
    slopes: torch.Tensor, goal: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return cost (N,), gradient (N, 5), Gauss-Newton curvature (N, 5, 5) and correlation (N,).

    With both pictures at weighted mean 0 and norm 1, half their squared distance is 1 minus their correlation.
    """
    across, down, moves = _places(positions, *_axes(SIDE, (0.0, 0.0, 1.0, 1.0)))
    grid = torch.stack([across, down], dim=-1).view(len(slopes), SIDE, SIDE, 2)
    sampled = grid_sample(slopes, grid, padding_mode="border", align_corners=False).flatten(2)
    values = sampled[:, 0]
    middle = values - (values * weights).sum(1, keepdim=True)
    norm = (middle * middle * weights).sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    own = middle / norm
    change = sampled[:, 1, None] * moves[:, 0] + sampled[:, 2, None] * moves[:, 1]
    change = change - (change * weights).sum(2, keepdim=True)
    change = (change - (change * (own * weights)[:, None]).sum(2, keepdim=True) * own[:, None]) / norm[:, None]
    spread = torch.tensor(SPREAD, dtype=torch.float64)
    likeness = (own * goal * weights).sum(1)
    cost = 1 - likeness + _PULL * ((positions / spread) ** 2).sum(1)
    weighed = change * weights
    gradient = (weighed * (own - goal)[:, None]).sum(2) + 2 * _PULL * positions / spread**2
    curvature = weighed @ change.transpose(1, 2) + torch.diag(2 * _PULL / spread**2)
    return cost, gradient, curvature, likeness


def _standard(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    middle = values - (values * weights).sum(1, keepdim=True)
    return middle / (middle * middle * weights).sum(1, keepdim=True).sqrt().clamp_min(1e-12)


def _slopes(seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the change across and down, for each half side of way."""
    wide = pad(seen, (1, 1, 1, 1), mode="replicate")
    scale = SIDE / 4
    return (wide[..., 1:-1, 2:] - wide[..., 1:-1, :-2]) * scale, (
        wide[..., 2:, 1:-1] - wide[..., :-2, 1:-1]
    ) * scale


def _window() -> torch.Tensor:
    """Return how much each place of the template counts, (64 * 64,), summing to 1: its rim, hardly."""
    inside = torch.zeros((1, 1, SIDE, SIDE), dtype=torch.float64)
    inside[:, :, 6:58, 8:56] = 1.0
    soft = blurred(inside, 2.0).flatten()
    return soft / soft.sum()
