"""What a drifting backbone gave in each epoch, kept on disk for further trainings.

How BatchNorm statistics drift follows from images and seed alone, never from the head. So another learning rate, or
more epochs, find the epochs that were embedded before, and take only the head's time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dicom_node.score import batch_norm
from dicom_node.score.backbone import TorchBackbone
from dicom_node.score.durable import sync_folder, write_synced
from training.head_pairs import Pair, Pairs

_PARTS, _STATISTICS = ("train", "held"), "statistics/"


class Drifting(Pairs, Protocol):
    """Pairs whose backbone changes with every epoch; see `head_pairs.FreshPairs`."""

    backbone: TorchBackbone


class KeptDrift:
    """The pairs of `fresh`, each epoch read from `folder` where it is there, else embedded and written to it.

    Parameters
    ----------
    folder
        Of one drift: backbone, images, split, batch and seed. An epoch of N images of width D, H of them held out,
        takes 8 (N + H) D bytes.
    batch
        Images in a batch, as `fresh` has them.
    """

    def __init__(self, fresh: Drifting, folder: Path, batch: int) -> None:
        self._fresh, self._folder, self._batch = fresh, folder, batch
        self._number, self._kept = 0, dict[str, torch.Tensor]()
        self._seen: list[Pair] = []
        folder.mkdir(parents=True, exist_ok=True)

    def epoch(self, number: int) -> Iterator[Pair]:
        """Return an epoch's batches for training; after them the backbone's statistics are those of its end."""
        self._number, self._kept, self._seen = number, self._load(number), []
        if self._kept:
            yield from self._batches("train")
            names = [key for key in self._kept if key.startswith(_STATISTICS)]
            drifted = {key.removeprefix(_STATISTICS): self._kept[key] for key in names}
            batch_norm.restore(self._fresh.backbone.module, drifted)
            return
        for pair in self._fresh.epoch(number):
            self._seen.append(pair)
            yield pair

    def held_out(self) -> Iterator[Pair]:
        """Return the held-out images under the statistics as they are now."""
        if self._kept:
            yield from self._batches("held")
            return
        held = []
        for pair in self._fresh.held_out():
            held.append(pair)
            yield pair
        self._save(held)

    def _batches(self, part: str) -> Iterator[Pair]:
        device = next(self._fresh.backbone.module.parameters()).device
        one, two = (
            torch.split(self._kept[f"{part}/{which}"].to(device), self._batch) for which in ("one", "two")
        )
        yield from zip(one, two, strict=True)

    def _place(self, number: int) -> Path:
        return self._folder / f"{number:05d}.safetensors"

    def _load(self, number: int) -> dict[str, torch.Tensor]:
        """Return an epoch as it was kept; nothing if there is none, or it is damaged."""
        try:
            return dict(load_tensors(self._place(number).read_bytes()))
        except (FileNotFoundError, safetensors.SafetensorError):
            return {}

    def _save(self, held: list[Pair]) -> None:
        tensors = {
            f"{part}/{which}": torch.cat([pair[at] for pair in pairs]).cpu()
            for part, pairs in zip(_PARTS, (self._seen, held), strict=True)
            for at, which in enumerate(("one", "two"))
        }
        now = batch_norm.statistics(self._fresh.backbone.module)
        tensors |= {f"{_STATISTICS}{name}": value for name, value in now.items()}
        staging = self._folder / f"{self._number:05d}.{os.getpid()}.writing"
        write_synced(staging, bytes(save_tensors(tensors)))
        staging.replace(self._place(self._number))
        sync_folder(self._folder)
        self._seen = []
