"""Pairs of views of an image as features: cached ones of a frozen backbone, or fresh ones of one that drifts.

Owns which image and which two views come when: a function of seed and epoch alone, so a training that was
killed goes on with the same pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm
from dicom_node.score.backbone import TorchBackbone
from dicom_node.score.pixels import Grey
from dicom_node.score.views import to_batch
from training.dataset import Reader
from training.manifest import Entry
from training.random_views import random_reader

Pair = tuple[torch.Tensor, torch.Tensor]

_FRESH, _HELD = 1, 2
"""What a draw of views is for (0 are the cached views): no two uses draw the same."""


class Pairs(Protocol):
    """Features (B, D) of two views of the same B images."""

    def epoch(self, number: int) -> Iterator[Pair]:
        """Return an epoch's batches for training."""

    def held_out(self) -> Iterator[Pair]:
        """Return batches of the images held out; the same views in every epoch."""


def batches(count: int, size: int, rng: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Return the rows 0..count-1 in random order, in batches of `size`; the last may be smaller."""
    order = rng.permutation(count)
    return [order[at : at + size] for at in range(0, count, size)]


class CachedPairs:
    """Two different ones out of the views that were embedded before.

    Parameters
    ----------
    features, held
        (N, V, D) and (H, V, D) float32, V at least 2.
    """

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        held: npt.NDArray[np.float32],
        batch: int,
        seed: int,
        device: str,
    ) -> None:
        self._features = torch.from_numpy(features).to(device)
        self._held = torch.from_numpy(held).to(device)
        self._batch, self._seed = batch, seed

    def epoch(self, number: int) -> Iterator[Pair]:
        """Return an epoch's batches for training."""
        count, views, _ = self._features.shape
        rng = np.random.default_rng([self._seed, number])
        for rows in batches(count, self._batch, rng):
            one = rng.integers(views, size=len(rows))
            two = (one + rng.integers(1, views, size=len(rows))) % views
            yield self._features[rows, one], self._features[rows, two]

    def held_out(self) -> Iterator[Pair]:
        """Return every held-out image with its views (1, 2), (2, 3), ... as pairs."""
        for view in range(self._held.shape[1] - 1):
            yield self._held[:, view], self._held[:, view + 1]


class FreshPairs:
    """Two new random views of each image, through a backbone whose BatchNorm layers are in train mode.

    Files are read anew in every epoch: memory does not grow with them, time does.

    Attributes
    ----------
    backbone
        The network whose statistics drift.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        held: Sequence[Entry],
        reader: Reader,
        backbone: TorchBackbone,
        pool: ThreadPoolExecutor,
        batch: int,
        seed: int,
    ) -> None:
        if not batch_norm.layers(backbone.module):
            raise BankError(f"{backbone.name} has no BatchNorm layers that could adapt; use bn frozen")
        self._entries, self._heldout = entries, held
        self._reader, self.backbone, self._pool = reader, backbone, pool
        self._batch, self._seed = batch, seed

    def epoch(self, number: int) -> Iterator[Pair]:
        """Return an epoch's batches for training; the statistics drift with each of them."""
        rng = np.random.default_rng([self._seed, number])
        for rows in batches(len(self._entries), self._batch, rng):
            chosen = [self._entries[row] for row in rows]
            views = self._cut(chosen, (self._seed, _FRESH, number))
            for layer in batch_norm.layers(self.backbone.module):
                layer.train()
            one, two = self._embed(views[:, 0]), self._embed(views[:, 1])
            self.backbone.module.eval()
            yield one, two

    def held_out(self) -> Iterator[Pair]:
        """Return the held-out images under the statistics as they are now."""
        for at in range(0, len(self._heldout), self._batch):
            views = self._cut(self._heldout[at : at + self._batch], (self._seed, _HELD))
            yield self._embed(views[:, 0]), self._embed(views[:, 1])

    def _cut(self, entries: Sequence[Entry], draw: tuple[int, ...]) -> Grey:
        reader = random_reader(self._reader, 2, draw)
        cut = []
        for item, views in self._pool.map(reader.read, entries):
            if views is None:
                raise BankError(
                    f"an image can no longer be used ({item.skipped}); the training set has changed"
                )
            cut.append(views)
        return np.stack(cut)

    def _embed(self, views: Grey) -> torch.Tensor:
        prep = self._reader.preprocessing
        return self.backbone.features(to_batch(views, prep.mean, prep.std))
