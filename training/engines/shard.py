"""One shard of files becomes features: the work that an engine hands out. The same files give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.score.backbone import Backbone
from dicom_node.score.scoring import embed_views
from training.dataset import Item, Reader
from training.manifest import Entry

Shard = Sequence[Entry]
Done = tuple[list[Item], npt.NDArray[np.float32]]
"""One item for each file, and the features (N, A, D) float32 of those that are not left out."""

VIEWS_AT_ONCE = 32
"""Views are collected up to this many before the backbone sees them."""


class Engine(Protocol):
    """Embeds shards somewhere."""

    def __call__(
        self, shards: Sequence[Shard], reader: Reader, backbone: Backbone
    ) -> Iterator[tuple[int, Done]]:
        """Yield the number of each shard and what became of it, in whatever order they are done."""


def embed_shard(shard: Shard, reader: Reader, backbone: Backbone) -> Done:
    """Read and embed the files of a shard, one after another, in this thread alone.

    Torch must be set to one thread: with more, sums are added in another order, and the last bits differ.
    """
    items, views = [], []
    parts = [np.empty((0, len(reader.views), backbone.dim), dtype=np.float32)]
    for entry in shard:
        item, cut = reader.read(entry)
        items.append(item)
        if cut is not None:
            views.append(cut)
        if len(views) * len(reader.views) >= VIEWS_AT_ONCE:
            parts.append(embed_views(backbone, np.stack(views), reader.preprocessing))
            views.clear()
    if views:
        parts.append(embed_views(backbone, np.stack(views), reader.preprocessing))
    return items, np.concatenate(parts)


def one_thread() -> None:
    """Set torch to one thread, for a worker's start."""
    torch.set_num_threads(1)
