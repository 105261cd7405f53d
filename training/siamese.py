"""Deep kNN's Siamese loss on two views, and the two layers it trains. Knows nothing of images or files.

With f the frozen backbone: z = g(f(t(x))), p = q(z); L = D(p1, sg z2) / 2 + D(p2, sg z1) / 2, where D(p, z) is
minus the mean cosine and sg stops the gradient.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from dicom_node.score.head import LAYERS, Head


class SiameseHead(nn.Module):
    """Adaptor g: Linear(D, D // 2), predictor q: Linear(D // 2, D // 2); no normalisation, no activation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.adaptor = nn.Linear(dim, dim // 2)
        self.predictor = nn.Linear(dim // 2, dim // 2)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return z and p, (N, D // 2) each, of features (N, D)."""
        z = self.adaptor(features)
        return z, self.predictor(z)

    def to_head(self, recipe: str = "") -> Head:
        """Return the layers as the node applies them, with the recipe that trained them as JSON."""
        layers = tuple(
            (name, np.array(layer.weight.detach().cpu()), np.array(layer.bias.detach().cpu()))
            for name, layer in ((name, getattr(self, name)) for name in LAYERS)
        )
        return Head(layers, recipe)


def new_head(dim: int, seed: int) -> SiameseHead:
    """Return a head of PyTorch's default initialisation, drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SiameseHead(dim)


def negative_cosine(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return D(p, z): minus the mean cosine between the rows of p and z, (N, D') each; z takes no gradient."""
    return -cosine_similarity(p, z.detach(), dim=1).mean()


def siamese_loss(head: SiameseHead, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Return L of the features (N, D) of two views of the same N images; in [-1, 1], -1 when all agree."""
    z1, p1 = head(one)
    z2, p2 = head(two)
    return 0.5 * negative_cosine(p1, z2) + 0.5 * negative_cosine(p2, z1)
