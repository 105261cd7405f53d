"""A head's training between two epochs, on disk: what a run that was killed goes on from. No pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from dicom_node.score.durable import sync_folder, write_synced

State = dict[str, torch.Tensor]

_PARTS = ("head", "adam", "statistics", "best_head", "best_statistics")


@dataclass
class Progress:
    """What a training has come to after whole epochs.

    Attributes
    ----------
    history
        (loss, held-out loss) of each epoch.
    head, adam, statistics
        The layers, Adam's moments and the backbone's BatchNorm statistics (empty unless they drift).
    best_epoch, best_head, best_statistics
        Of the lowest held-out loss so far; epochs count from 1.
    """

    history: list[tuple[float, float]] = field(default_factory=list)
    head: State = field(default_factory=dict)
    adam: State = field(default_factory=dict)
    statistics: State = field(default_factory=dict)
    best_epoch: int = 0
    best_head: State = field(default_factory=dict)
    best_statistics: State = field(default_factory=dict)


def run_key(recipe: str, trained_on: tuple[str, ...], held_out: tuple[str, ...]) -> str:
    """Return the hash of everything a training follows from; a checkpoint of another key is no use."""
    return hashlib.sha256(json.dumps([recipe, trained_on, held_out]).encode()).hexdigest()


def save(path: Path, progress: Progress, key: str) -> None:
    """Write the checkpoint beside its place, sync it, and rename it there."""
    tensors = {
        f"{part}/{name}": value.detach().cpu().clone()
        for part in _PARTS
        for name, value in getattr(progress, part).items()
    }
    metadata = {
        "key": key,
        "history": json.dumps(progress.history),
        "best_epoch": str(progress.best_epoch),
    }
    staging = path.with_suffix(".writing")
    write_synced(staging, bytes(save_tensors(tensors, metadata=metadata)))
    staging.replace(path)
    sync_folder(path.parent)


def load(path: Path, key: str) -> Progress | None:
    """Return the checkpoint; None if there is none, it is damaged, or of another training."""
    try:
        content = path.read_bytes()
        tensors = load_tensors(content)
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        if metadata["key"] != key:
            return None
        history = [(float(loss), float(held)) for loss, held in json.loads(metadata["history"])]
        progress = Progress(history=history, best_epoch=int(metadata["best_epoch"]))
    except (FileNotFoundError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    for name, value in tensors.items():
        part, _, rest = name.partition("/")
        getattr(progress, part)[rest] = value
    return progress
