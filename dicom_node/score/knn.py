"""Distances to the bank and how they become one number. Pure: takes vectors and an index, does no I/O.

Distances are squared Euclidean between unit vectors, 2 - 2 cos, in [0, 4]; higher is further from normal.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

FLOOR = 1e-6
"""Smallest distance that enters the geometric mean.

A view of an image that is itself in the bank has distance 0, whose logarithm would make the whole score 0
whatever the other views say. 1e-6 lies just above the float32 noise of 2 - 2 cos and far below any distance
between two images.

What a duplicate of a bank image gets: with k = 1 every view finds itself, and the score is `FLOOR`, the least
there is (a percentile of 0). With k > 1 it is compared with its next neighbours, first of all its own other
views, and still scores low. An image that shares one view with the bank has that distance counted as `FLOOR`; the
other views keep their say, but the score falls by the factor (d / `FLOOR`) ** (1 / A): 3.4 with ten views at
d = 0.2, so duplicates are left out of bank and calibration, and a second export of a known image is not evidence.
"""

_MARGIN = 8
"""Candidates taken beyond those asked for, so that float32 noise in the index cannot drop a true neighbour."""


class Index(Protocol):
    """What is needed of a flat FAISS index."""

    ntotal: int

    def search(self, x: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return distances and rows of the k nearest vectors."""

    def reconstruct_batch(self, key: Rows) -> Vectors:
        """Return the vectors of these rows."""


def nearest(index: Index, queries: Vectors, count: int) -> tuple[Floats, Rows]:
    """Return the exact nearest vectors.

    The index proposes, float64 decides: a query's distance does not depend on what shares its batch.

    Parameters
    ----------
    index
        Flat index over the bank's (M, D) unit vectors.
    queries
        (Q, D) float32, unit L2.
    count
        Neighbours wanted, 1 <= count <= M.

    Returns
    -------
    distances : numpy.ndarray
        (Q, count) float64 squared distances, nearest first.
    rows : numpy.ndarray
        (Q, count) int64 rows in the bank; equal distances in the order of their rows.

    Raises
    ------
    BankError
        If the bank has fewer vectors than `count`.
    """
    if not 1 <= count <= index.ntotal:
        raise BankError(f"{count} neighbours are asked of a bank of {index.ntotal} vectors")
    taken = min(index.ntotal, count + _MARGIN)
    _, rows = index.search(np.ascontiguousarray(queries, dtype=np.float32), taken)
    distances = np.empty(rows.shape, dtype=np.float64)
    for at, query in enumerate(queries):
        candidates = index.reconstruct_batch(rows[at]).astype(np.float64)
        distances[at] = np.square(candidates - query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((rows[at], distances[at]))
        rows[at], distances[at] = rows[at][order], distances[at][order]
    return distances[:, :count], rows[:, :count].astype(np.int64)


def kth_distance(distances: Floats, k: int) -> Floats:
    """Return the k-th smallest distance (Q,) from sorted (Q, >= k) distances; k counts from 1."""
    return distances[:, k - 1]


def kth_distance_without(distances: Floats, owners: Rows, own: int, k: int) -> Floats:
    """Return the k-th smallest distance of each query among vectors that are not its own.

    Parameters
    ----------
    distances
        (Q, C) float64, nearest first.
    owners
        (Q, C) int64, whose vector each is.
    own
        The owner to leave out.
    k
        From 1.

    Raises
    ------
    BankError
        If fewer than k foreign vectors are among the C of some query.
    """
    out = np.empty(len(distances), dtype=np.float64)
    for at, (row, who) in enumerate(zip(distances, owners, strict=True)):
        foreign = row[who != own]
        if len(foreign) < k:
            raise BankError(f"only {len(foreign)} vectors of others among {len(row)}; {k} are needed")
        out[at] = foreign[k - 1]
    return out


def geometric_mean(distances: Floats, axis: int = -1) -> Floats:
    """Return the geometric mean, the score s(x) of Deep kNN: (prod d_a) ** (1 / A), in log space.

    Distances below `FLOOR` count as `FLOOR`.
    """
    return np.asarray(np.exp(np.log(np.maximum(distances, FLOOR)).mean(axis=axis)))


def neighbours(distances: Floats, owners: Rows, count: int) -> tuple[int, ...]:
    """Return the owners nearest to any view, nearest first, each once.

    Parameters
    ----------
    distances, owners
        (A, C), as from `nearest` with rows turned into images.
    count
        At most this many.
    """
    best: dict[int, float] = {}
    for distance, owner in zip(distances.ravel().tolist(), owners.ravel().tolist(), strict=True):
        best[owner] = min(distance, best.get(owner, np.inf))
    return tuple(sorted(best, key=lambda owner: (best[owner], owner))[:count])
