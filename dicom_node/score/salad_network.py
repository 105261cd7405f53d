"""SALAD's network: an encoder to the unit sphere and a decoder back, without skips. Pure torch, no I/O.

Bozorgtabar et al., SALAD, MICCAI 2020. Written from the layers the paper lists. Knows no bank and no memory.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn.functional import normalize

CHANNELS = 16
"""Channels of the first level; the paper's."""

SIZE = 256
"""Side of the input, pixels; the paper's."""

DIM = 200
"""Length D of an embedding; the paper's."""

BOTTLENECK = 4
"""Side of the deepest map, pixels."""

_SLOPE = 0.1


def levels(size: int) -> int:
    """Return how often an input of this side is halved to reach 4 x 4.

    Raises
    ------
    ValueError
        If `size` is not 4 times a power of two, or below 8.
    """
    count = (size // BOTTLENECK).bit_length() - 1
    if count < 1 or BOTTLENECK << count != size:
        raise ValueError(f"size is {size}; it must be 4 times a power of two: 8, 16, ... 256")
    return count


class DoubleConvolution(nn.Sequential):
    """Twice: 3 x 3 convolution without bias, BatchNorm, LeakyReLU of slope 0.1."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__(
            nn.Conv2d(entering, leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.LeakyReLU(_SLOPE),
            nn.Conv2d(leaving, leaving, 3, padding=1, bias=False),
            nn.BatchNorm2d(leaving),
            nn.LeakyReLU(_SLOPE),
        )


class SaladEncoder(nn.Module):
    """Images (N, 3, size, size) float32, normalised, to embeddings (N, dim) float32 of unit length.

    Parameters
    ----------
    size
        Side of the input; 4 times a power of two. 256 is halved six times.
    channels
        Of the first level; each level doubles them, 16 to 1024 at 256.
    dim
        Length of an embedding.
    """

    def __init__(self, size: int = SIZE, channels: int = CHANNELS, dim: int = DIM) -> None:
        super().__init__()
        self.dim = dim
        layers: list[nn.Module] = [DoubleConvolution(3, channels)]
        for level in range(levels(size)):
            width = channels << level
            layers += [nn.MaxPool2d(2), DoubleConvolution(width, 2 * width)]
        self.down = nn.Sequential(*layers)
        self.embed = nn.Conv2d(channels << levels(size), dim, BOTTLENECK)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return z, (N, dim) of unit length."""
        return normalize(self.embed(self.down(batch)).flatten(1), dim=1)


class SaladDecoder(nn.Module):
    """Embeddings (N, dim) to images (N, 3, size, size) float32 in (-1, 1); see `SaladEncoder`."""

    def __init__(self, size: int = SIZE, channels: int = CHANNELS, dim: int = DIM) -> None:
        super().__init__()
        width = channels << levels(size)
        self.spread = nn.ConvTranspose2d(dim, width, BOTTLENECK)
        layers: list[nn.Module] = []
        for _ in range(levels(size)):
            layers += [
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(width, width // 2, 1),
                nn.BatchNorm2d(width // 2),
                DoubleConvolution(width // 2, width // 2),
            ]
            width //= 2
        self.up = nn.Sequential(*layers, nn.Conv2d(width, 3, 1), nn.Tanh())

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Return the reconstructions of embeddings."""
        return cast("torch.Tensor", self.up(self.spread(z[:, :, None, None])))


class SaladNetwork(nn.Module):
    """Encoder and decoder, which train together; only the encoder goes into a bank."""

    def __init__(self, size: int = SIZE, channels: int = CHANNELS, dim: int = DIM) -> None:
        super().__init__()
        self.encoder = SaladEncoder(size, channels, dim)
        self.decoder = SaladDecoder(size, channels, dim)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return embeddings (N, dim) and reconstructions (N, 3, size, size)."""
        z = self.encoder(batch)
        return z, self.decoder(z)
