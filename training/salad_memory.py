"""SALAD's memory: one row for each training image, and the anchors of a round. Pure torch."""

from __future__ import annotations

import math

import torch

from dicom_node.score.salad import TAU

MOMENTUM = 0.5
"""Share t of the new embedding in an updated row."""

NEIGHBOURS = 10
"""Rows in a neighbourhood Omega_i."""

_CHUNK = 1024


def initial(rows: int, dim: int, generator: torch.Generator) -> torch.Tensor:
    """Return the first memory, (rows, dim) float32, uniform in +-1 / sqrt(dim / 3): length 1 on average."""
    bound = 1.0 / math.sqrt(dim / 3)
    return (torch.rand((rows, dim), generator=generator) * 2.0 - 1.0) * bound


def update(memory: torch.Tensor, rows: torch.Tensor, z: torch.Tensor, momentum: float = MOMENTUM) -> None:
    """Set m_i to norm((1 - t) m_i + t z_i) for the rows of a batch, in place.

    Parameters
    ----------
    memory
        (N, D).
    rows
        (B,) int64, each once.
    z
        (B, D) unit L2, without gradient.
    """
    mixed = (1.0 - momentum) * memory[rows] + momentum * z
    memory[rows] = torch.nn.functional.normalize(mixed, dim=1)


def entropies(memory: torch.Tensor, tau: float = TAU) -> torch.Tensor:
    """Return H_i = -sum_j P(m_i)_j log P(m_i)_j of every row, (N,), in nats; P(m_i) = softmax(m_i M' / tau)."""
    parts = []
    for at in range(0, len(memory), _CHUNK):
        logs = torch.log_softmax(memory[at : at + _CHUNK] @ memory.T / tau, 1)
        parts.append(-(logs.exp() * logs).sum(1))
    return torch.cat(parts)


def anchor_count(round_number: int, rows: int) -> int:
    """Return int(0.1 r N), in whole numbers so that rounding cannot lose one; at most N."""
    return min(round_number * rows // 10, rows)


def anchors(memory: torch.Tensor, round_number: int, tau: float = TAU) -> torch.Tensor:
    """Return which rows are anchors of a round, (N,) bool: those of lowest entropy, ties by row."""
    chosen = torch.zeros(len(memory), dtype=torch.bool, device=memory.device)
    order = torch.argsort(entropies(memory, tau), stable=True)
    chosen[order[: anchor_count(round_number, len(memory))]] = True
    return chosen


def neighbourhoods(memory: torch.Tensor, count: int = NEIGHBOURS) -> torch.Tensor:
    """Return Omega_i of every row, (N, n) int64: the n nearest rows by cosine, the row itself excluded.

    n is `count`, or N - 1 where the memory is smaller than that.
    """
    unit = torch.nn.functional.normalize(memory, dim=1)
    parts = []
    for at in range(0, len(unit), _CHUNK):
        cosines = unit[at : at + _CHUNK] @ unit.T
        own = torch.arange(len(cosines), device=memory.device)
        cosines[own, own + at] = -torch.inf
        parts.append(cosines.topk(min(count, len(memory) - 1), dim=1).indices)
    return torch.cat(parts)
