"""Which normals of a bank look least like the others: for a person to look at, or to leave out. Pure.

A folder of "normal" images is rarely clean. An image's distance is its score against the images of the other
patients with k = 5 A (A views an image), so that a few abnormal images that resemble each other
cannot vouch for one another.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from training.dataset import Item
from training.index import Exact

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

REVIEW = "review.csv"
"""Beside the bank's files; people read it, nothing depends on it."""

FLAGGED_FROM = 3.5
"""Robust z-score from which an image is flagged (Iglewicz and Hoaglin, 1993)."""

LISTED_SHARE, LISTED_AT_LEAST = 0.05, 20
"""The review lists every flagged image, and the farthest ones up to this share or number."""

MOST_VECTORS = 20_000
"""A bank of more vectors is compared with a sample of this many: the work grows with bank times sample."""

_IMAGES_ROUND = 5
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Review:
    """How far each image of a bank lies from the others.

    Attributes
    ----------
    distances
        (N,) float64; higher is farther.
    robust_z
        (N,) float64, see `robust_z`.
    """

    distances: Floats
    robust_z: Floats

    @property
    def flagged(self) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: the images that a person should look at."""
        return self.robust_z > FLAGGED_FROM

    def farthest(self) -> list[int]:
        """Return all rows, the farthest image first; equal ones in their order."""
        return [int(row) for row in np.argsort(-self.distances, kind="stable")]


def robust_z(values: Floats) -> Floats:
    """Return the modified z-scores 0.6745 (x - median) / MAD; all 0 where the values do not spread.

    Where half of the values are equal, 1.2533 times the mean absolute deviation stands for MAD / 0.6745.
    """
    deviations = values - np.median(values)
    median, mean = float(np.median(np.abs(deviations))), float(np.mean(np.abs(deviations)))
    spread = median / 0.6745 if median > 0 else 1.2533 * mean
    return deviations / spread if spread > 0 else np.zeros_like(values)


def review(vectors: Vectors, patients: Sequence[str], seed: int = 0, most: int = MOST_VECTORS) -> Review:
    """Compare every image with those of the other patients.

    Parameters
    ----------
    vectors
        (N, A, D') float32, unit L2.
    patients
        Whose image each is.
    seed, most
        Of the sample that stands for the bank where it has more than `most` vectors.
    """
    count, views, _ = vectors.shape
    reference = np.arange(count)
    if count * views > most:
        chosen = np.random.default_rng(seed).choice(count, max(1, most // views), replace=False)
        reference = np.sort(chosen)
    owners = _numbers(patients)
    others = len(reference) * views - int(np.bincount(owners[reference]).max()) * views
    if others < 1:
        return Review(np.zeros(count), np.zeros(count))
    k = min(_IMAGES_ROUND * views, others)
    distances = score_without_own(vectors[reference], owners[reference], vectors, owners, k)
    return Review(distances, robust_z(distances))


def score_without_own(
    bank: Vectors,
    bank_owners: knn.Rows,
    queries: Vectors,
    query_owners: knn.Rows,
    k: int,
    index: knn.Index | None = None,
) -> Floats:
    """Return the score (Q,) of every query against the bank without the images of the query's own patient.

    Parameters
    ----------
    bank, queries
        (N, A, D') and (Q, A, D') float32, unit L2.
    bank_owners, query_owners
        (N,) and (Q,) int64: whose image each is.
    k
        From 1.
    index
        Searches the bank; by default every vector is compared, a piece of the bank at a time.

    Raises
    ------
    BankError
        If some patient's images leave fewer than k vectors.
    """
    views, dim = bank.shape[1:]
    largest = int(np.bincount(bank_owners).max()) * views
    if len(bank) * views < largest + k:
        raise BankError(f"{k} vectors of other patients are needed; one patient has {largest} of all")
    searched = index or Exact(bank.reshape(-1, dim))
    kth = np.empty(queries.shape[:2], dtype=np.float64)
    for start in range(0, len(queries), _CHUNK):
        part = queries[start : start + _CHUNK]
        distances, rows = knn.nearest(searched, part.reshape(-1, dim), largest + k)
        whose = bank_owners[rows // views]
        for at in range(len(part)):
            own = slice(at * views, (at + 1) * views)
            owner = int(query_owners[start + at])
            kth[start + at] = knn.kth_distance_without(distances[own], whose[own], owner, k)
    return knn.geometric_mean(kth)


def kept_rows(found: Review, fraction: float) -> list[int]:
    """Return the rows that stay when the farthest `fraction` of the images, rounded, is left out; ascending.

    Raises
    ------
    BankError
        If the fraction is not from 0 to below 0.5: most of a bank's images must be what it is a bank of.
    """
    if not 0 <= fraction < 0.5:
        raise BankError(f"the share of outliers to drop is {fraction:g}; it must be 0 or more and below 0.5")
    return sorted(found.farthest()[round(fraction * len(found.distances)) :])


def without(
    bank: Vectors,
    items: Sequence[Item],
    left: Vectors,
    dropped: Sequence[Item],
    k: int,
    index: knn.Index | None = None,
) -> Floats:
    """Return the scores of dropped images against the bank that is left, without their own patients' images.

    Parameters
    ----------
    bank, items
        (N, A, D') and whose; may lie in a file.
    left, dropped
        (Q, A, D') and whose.
    index
        As for `score_without_own`.
    """
    owners = _numbers([item.patient for item in [*items, *dropped]])
    return score_without_own(bank, owners[: len(items)], left, owners[len(items) :], k, index)


def review_csv(found: Review, items: Sequence[Item], paths: Sequence[Path], dropped: Sequence[int]) -> bytes:
    """Return the review as CSV: the farthest image first, with the file it came from."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["place", "image", "path", "distance", "robust_z", "flagged", "dropped"])
    flagged, gone = found.flagged, set(dropped)
    listed = max(LISTED_AT_LEAST, round(LISTED_SHARE * len(items)), int(flagged.sum()), len(gone))
    for place, row in enumerate(found.farthest()[:listed], 1):
        values = (f"{found.distances[row]:.6g}", f"{found.robust_z[row]:.3g}")
        marks = ("yes" if flagged[row] else "no", "yes" if row in gone else "no")
        table.writerow([place, items[row].file_id, str(paths[row]), *values, *marks])
    return out.getvalue().encode()


def _numbers(patients: Sequence[str]) -> knn.Rows:
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    return np.array([numbers[patient] for patient in patients], dtype=np.int64)
