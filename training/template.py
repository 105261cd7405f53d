"""Makes the template that chests are registered to: the normals' mean, once they lie over each other. Pure.

Congealing: every image is registered to the mean of all, the mean is taken anew, coarse to fine. The mean
position stays the identity, so the template lies as the average normal lies in its picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.score.align import SPREAD, Grey, blurred, climb, prepared, warped

MOST = 400
"""Images that a template is made of, at most: a mean of more looks the same."""

ROUNDS = ((3.0, 12), (2.0, 8), (1.0, 8), (0.7, 8))
"""Blur (pixels of 64) and steps of each round."""


def make_template(take: Callable[[Sequence[int]], Grey], count: int, seed: int) -> npt.NDArray[np.float32]:
    """Return the template (64, 64) float32 of normal images.

    Parameters
    ----------
    take
        From rows to images (n, S, S) float32 in [0, 1].
    count
        How many images there are; `MOST` of them are drawn where there are more.
    seed
        Of the draw.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(count)[:MOST]).tolist()
    blocks = [prepared(take(rows[at : at + 64])) for at in range(0, len(rows), 64)]
    positions = [torch.zeros((len(block), len(SPREAD)), dtype=torch.float64) for block in blocks]
    template = blurred(_mean(blocks), 1.0)
    for blur, steps in ROUNDS:
        target = blurred(template, blur)
        positions = [
            climb(blurred(block, blur), target, position, steps)[0]
            for block, position in zip(blocks, positions, strict=True)
        ]
        centre = torch.cat(positions).mean(0)
        positions = [position - centre for position in positions]
        template = _mean([warped(b, p) for b, p in zip(blocks, positions, strict=True)])
    return template[0, 0].numpy().astype(np.float32)


def _mean(blocks: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([block.sum(0) for block in blocks]).sum(0, keepdim=True) / sum(map(len, blocks))
