"""SALAD's losses, from the formulas of the paper (Bozorgtabar et al., MICCAI 2020). Pure torch."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn.functional import l1_loss, mse_loss

from dicom_node.score.salad import TAU

Reconstruction = Literal["l1", "mse"]

WEIGHT = 0.25
"""Of the mean neighbourhood loss; the reconstruction has weight 1."""


def similarities(z: torch.Tensor, memory: torch.Tensor, tau: float = TAU) -> torch.Tensor:
    """Return z . m_j / tau, (B, N): the logits of P_i = softmax(z_i M' / tau)."""
    return z @ memory.T / tau


def instance_losses(logits: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Return L_ss = -log P_ii of each image.

    Parameters
    ----------
    logits
        (B, N), from `similarities`.
    own
        (B,) int64: the memory row of each image.

    Returns
    -------
    torch.Tensor
        (B,), at least 0.
    """
    return torch.logsumexp(logits, 1) - logits.gather(1, own[:, None])[:, 0]


def neighbourhood_losses(logits: torch.Tensor, own: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """Return L_agg = -log(P_ii + sum of P_ij over the neighbours) of each image.

    Parameters
    ----------
    neighbours
        (B, n) int64: the rows of Omega_i; n = 0 gives `instance_losses`.
    """
    inside = logits.gather(1, torch.cat([own[:, None], neighbours], 1))
    return torch.logsumexp(logits, 1) - torch.logsumexp(inside, 1)


def mixed_losses(
    logits: torch.Tensor, own: torch.Tensor, anchors: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """Return L_agg of the images whose rows are anchors and L_ss of the others, (B,).

    Parameters
    ----------
    anchors
        (N,) bool, of every memory row.
    neighbours
        (N, n) int64, of every memory row.
    """
    return torch.where(
        anchors[own], neighbourhood_losses(logits, own, neighbours[own]), instance_losses(logits, own)
    )


def reconstruction_loss(seen: torch.Tensor, image: torch.Tensor, kind: Reconstruction = "l1") -> torch.Tensor:
    """Return the mean absolute error ("l1"), or the mean squared one ("mse", which the paper's text names)."""
    return l1_loss(seen, image) if kind == "l1" else mse_loss(seen, image)


def total_loss(losses: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Return 0.25 x the mean of the images' losses + 1 x the reconstruction loss."""
    return WEIGHT * losses.mean() + reconstruction
