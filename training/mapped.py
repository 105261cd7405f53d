"""Arrays too large for memory: written piece by piece to a file without a name, and read as if they were there.

The system keeps as much of such a file in memory as it has room for. It is gone with the last use of the array, and
with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.score.head import Head

Vectors = npt.NDArray[np.float32]

IMAGES = 1024
"""Images worked on at once."""


def spool(parts: Iterable[Vectors], tail: tuple[int, ...], folder: Path) -> Vectors:
    """Return parts, one after another, as one read-only array.

    Parameters
    ----------
    parts
        Each (n, *tail) float32.
    tail
        Shape of a row.
    folder
        On a file system with room for the whole.
    """
    rows = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype=np.float32).data)
            rows += len(part)
        file.flush()
        if not rows:
            return np.empty((0, *tail), dtype=np.float32)
        return np.asarray(np.memmap(file, dtype=np.float32, mode="r", shape=(rows, *tail)))


def gather(source: Vectors, rows: Sequence[int], folder: Path) -> Vectors:
    """Return `source[rows]`; without a copy where that is all of it in order."""
    if len(rows) == len(source) and all(at == row for at, row in enumerate(rows)):
        return source
    parts = (source[list(rows[at : at + IMAGES])] for at in range(0, len(rows), IMAGES))
    return spool(parts, source.shape[1:], folder)


def embeddings(head: Head, features: Vectors, folder: Path) -> Vectors:
    """Return the head's unit vectors (N, A, D') of features (N, A, D)."""
    _, views, dim = features.shape

    def applied(part: Vectors) -> Vectors:
        return head.apply(part.reshape(-1, dim)).reshape(len(part), views, -1)

    parts = (applied(features[at : at + IMAGES]) for at in range(0, len(features), IMAGES))
    return spool(parts, (views, head.output_dim(dim)), folder)
