"""A few patches that stand for many: a seeded sample of a stream, and the greedy coreset. Pure.

The sample holds a bounded number of rows however long the stream; the coreset is chosen out of the sample.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Sample:
    """A uniform sample without replacement of the rows of a stream, in constant memory.

    Every row draws a number; those with the smallest are kept. The sample depends on the seed and on the order
    of the rows, not on how they come in parts.

    Parameters
    ----------
    size
        Rows kept at most.
    seed
        Of the draws.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._keys = np.empty(0)
        self._rows: Floats | None = None
        self.seen = 0

    def add(self, rows: Floats) -> None:
        """Offer rows (n, D)."""
        self.seen += len(rows)
        keys = np.concatenate([self._keys, self._random.random(len(rows))])
        joined = rows if self._rows is None else np.concatenate([self._rows, rows])
        if len(keys) > self._size:
            kept = np.sort(np.argpartition(keys, self._size)[: self._size])
            keys, joined = keys[kept], joined[kept]
        self._keys, self._rows = keys, joined

    def rows(self) -> Floats:
        """Return the kept rows (at most `size`, D) in the order in which they came."""
        return np.empty((0, 0), dtype=np.float32) if self._rows is None else self._rows


def greedy(points: Floats, count: int, seed: int) -> Rows:
    """Return the rows of a greedy coreset: each next point is the one farthest from all chosen so far.

    The farthest-first traversal (Gonzalez 1985) of PatchCore's algorithm 1: the largest distance of any point
    to the coreset is at most twice the least possible.

    Parameters
    ----------
    points
        (N, D) float32.
    count
        Points wanted; all of them if there are no more.
    seed
        Of the first point.

    Returns
    -------
    numpy.ndarray
        (min(count, N),) int64 in the order of choice; equal distances in the order of their rows.
    """
    total = len(points)
    if count >= total:
        return np.arange(total, dtype=np.int64)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = np.random.default_rng(seed).integers(total)
    lengths = np.square(points).sum(axis=1)
    nearest = np.full(total, np.inf, dtype=np.float32)
    for at in range(1, count):
        last = points[chosen[at - 1]]
        np.minimum(nearest, lengths - 2.0 * (points @ last) + last @ last, out=nearest)
        nearest[chosen[at - 1]] = -np.inf
        chosen[at] = int(nearest.argmax())
    return chosen
