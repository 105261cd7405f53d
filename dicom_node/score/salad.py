"""SALAD's score: the mean angle to the nearest memory rows of normal images.

Bozorgtabar et al., SALAD, MICCAI 2020; written from the formulas. Knows nothing of headers, eligibility, or
which bank is active.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dicom_node.domain.errors import BankError
from dicom_node.domain.types import Provenance, Score
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.measured import NEIGHBOURS, among_normals, provenance_of
from dicom_node.score.pixels import Grey
from dicom_node.score.salad_bank import SaladBank
from dicom_node.score.salad_facts import Weighting
from dicom_node.score.salad_network import SaladEncoder
from dicom_node.score.saliency import Saliency
from dicom_node.score.views import make_views, to_batch

ALGORITHM = "SALAD, mean angle to the nearest memory rows of normal images"
ALGORITHM_WEIGHTED = "SALAD, weighted mean angle to the nearest memory rows of normal images"

K = 100
"""Memory rows that a score looks at; the paper's."""

TAU = 0.1
"""Temperature of the softmax; the paper's."""

_BATCH = 32

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


def anomaly_scores(
    z: Vectors, memory: Vectors, k: int = K, weighting: Weighting = "mean", tau: float = TAU
) -> tuple[Floats, Rows]:
    """Return how far embeddings lie from the memory.

    A(x) = sum over the k nearest rows of w_j arccos(z . m_j) / pi; w_j = 1 / k, or, "weighted", proportional to
    exp(z . m_j / tau), summing to 1. The cosine is clamped to [-1, 1], which rounding can leave.

    Parameters
    ----------
    z
        (N, D) float32, unit L2.
    memory
        (M, D) float32, unit L2.
    k
        From 1 to M.

    Returns
    -------
    scores : numpy.ndarray
        (N,) float64 in [0, 1]; higher is further from normal.
    rows : numpy.ndarray
        (N, k) int64: the nearest memory rows, nearest first, ties by row.

    Raises
    ------
    BankError
        If k does not fit the memory.
    """
    if not 1 <= k <= len(memory):
        raise BankError(f"k is {k}; the memory has {len(memory)} rows, and k must be from 1 to that")
    exact = memory.astype(np.float64)
    scores = np.empty(len(z), dtype=np.float64)
    rows = np.empty((len(z), k), dtype=np.int64)
    for at, vector in enumerate(z.astype(np.float64)):
        cosines = np.clip(exact @ vector, -1.0, 1.0)
        rows[at] = np.argsort(-cosines, kind="stable")[:k]
        near = cosines[rows[at]]
        angles = np.arccos(near) / np.pi
        weights = np.exp((near - near[0]) / tau) if weighting == "weighted" else np.ones(k)
        scores[at] = (weights * angles).sum() / weights.sum()
    return scores, rows


def encode(encoder: SaladEncoder, images: Grey, preprocessing: Preprocessing) -> Vectors:
    """Return the embeddings (N, D) float32, unit L2, of square images (N, S, S) float32 in [0, 1].

    The encoder must be in evaluation mode; it may live on a GPU.
    """
    where = next(encoder.parameters()).device
    parts = []
    with torch.inference_mode():
        for at in range(0, len(images), _BATCH):
            batch = to_batch(images[at : at + _BATCH], preprocessing.mean, preprocessing.std)
            parts.append(encoder(batch.to(where)).float().cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, encoder.dim), dtype=np.float32)


class SaladScorer:
    """Scores images against one SALAD bank, behind the interface of `scoring.Scorer`. Safe between threads."""

    def __init__(self, bank: SaladBank) -> None:
        facts = bank.manifest.salad
        if facts is None:
            raise BankError(f"bank {bank.manifest.name} says nothing of its encoder; a bank of kind salad must")
        self.bank = bank
        self._facts = facts

    @property
    def explains(self) -> bool:
        """Say whether the bank has what heat maps need: never, the score compares whole images without places."""
        return False

    def explain(self, _grey: Grey) -> Saliency:
        """Raise BankError: SALAD compares whole images, its angles have no places."""
        raise BankError(
            f"bank {self.bank.manifest.name} is of kind salad, whose score has no places: a heat map needs a "
            "deep-knn bank with patches, or an aligned-knn bank"
        )

    def score_images(self, images: Sequence[Grey]) -> list[Score]:
        """Score grey images.

        Parameters
        ----------
        images
            Each (H, W) float32 in [0, 1], brighter is denser, made with the bank's window and rescale.

        Returns
        -------
        list of Score
            One for each image, in order; value in [0, 1], an angle as a share of pi, with 6 significant digits.
        """
        if not images:
            return []
        manifest = self.bank.manifest
        prep = manifest.preprocessing
        cut = np.stack([make_views(g, manifest.views, prep.size, prep.resize_short)[0] for g in images])
        z = encode(self.bank.encoder, cut, prep)
        values, rows = anomaly_scores(z, self.bank.memory, manifest.k, self._facts.weighting, self._facts.tau)
        scored = zip(values.tolist(), rows, strict=True)
        return [
            among_normals(
                value, manifest, self.bank.calibration, [self.bank.images[row] for row in near[:NEIGHBOURS]]
            )
            for value, near in scored
        ]

    def provenance(self) -> Provenance:
        """Return what every report says of the bank and the algorithm."""
        return provenance_of(
            self.bank.manifest,
            self.bank.bank_hash,
            ALGORITHM if self._facts.weighting == "mean" else ALGORITHM_WEIGHTED,
        )
