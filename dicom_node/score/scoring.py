"""From an image to its score against one bank: views, backbone, head, distances, calibration.

Knows nothing of headers, eligibility, or which bank is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.domain.types import Provenance, Score
from dicom_node.score import knn
from dicom_node.score.aligned import AlignedScorer
from dicom_node.score.aligned_bank import AlignedBank, load_aligned_bank
from dicom_node.score.backbone import Backbone, load_backbone
from dicom_node.score.bank import WEIGHTS, Bank, load_bank, read_manifest
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.measured import NEIGHBOURS, among_normals, provenance_of
from dicom_node.score.pixels import Grey
from dicom_node.score.salad import SaladScorer
from dicom_node.score.salad_bank import load_salad_bank
from dicom_node.score.saliency import Saliency, explain
from dicom_node.score.views import make_views, to_batch

ALGORITHM = "k-nearest-neighbour distance to normal images, geometric mean over views"
_BATCH = 32
"""Views that the backbone sees at once; more does not make a CPU faster."""


def embed_views(backbone: Backbone, views: Grey, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Return the backbone's features of views.

    Parameters
    ----------
    views
        (N, A, S, S) float32 in [0, 1], as from `make_views`.

    Returns
    -------
    numpy.ndarray
        (N, A, D) float32, before any head.

    Raises
    ------
    BankError
        If the backbone takes images in one normalisation only, and this is another.
    """
    wanted = backbone.normalisation
    if wanted and (preprocessing.mean, preprocessing.std) != NORMALISATIONS[wanted]:
        raise BankError(
            f"{backbone.name} takes images in the normalisation {wanted}; here mean is {preprocessing.mean} "
            f"and std {preprocessing.std}"
        )
    images, count, side, _ = views.shape
    flat = views.reshape(images * count, side, side)
    parts = [
        backbone.embed(to_batch(flat[at : at + _BATCH], preprocessing.mean, preprocessing.std))
        for at in range(0, len(flat), _BATCH)
    ]
    return np.concatenate(parts).reshape(images, count, -1)


class Scorer:
    """Scores images against one bank. Safe to share between threads.

    Raises
    ------
    BankError
        If the backbone is not the one, to the byte, that made the bank.
    """

    def __init__(self, bank: Bank, backbone: Backbone) -> None:
        wanted = bank.manifest.backbone
        if (backbone.name, backbone.weights_sha256) != (wanted.name, wanted.weights_sha256):
            raise BankError(
                f"bank {bank.manifest.name} was made with {wanted.name} of SHA-256 {wanted.weights_sha256}; "
                f"here is {backbone.name} of {backbone.weights_sha256}"
            )
        dim = bank.head.output_dim(backbone.dim)
        if dim != bank.manifest.dim:
            raise BankError(
                f"bank {bank.manifest.name} holds vectors of {bank.manifest.dim}, the head gives {dim}"
            )
        self.bank = bank
        self.backbone = backbone.with_statistics(bank.statistics) if bank.statistics else backbone

    def score_images(self, images: Sequence[Grey]) -> list[Score]:
        """Score grey images.

        Parameters
        ----------
        images
            Each (H, W) float32 in [0, 1], brighter is denser, made with the bank's window and rescale.

        Returns
        -------
        list of Score
            One for each image, in order, with 6 significant digits: another batch or number of threads moves the
            last digits of float32, and a report made again must be the same report.
        """
        manifest = self.bank.manifest
        prep = manifest.preprocessing
        views = [make_views(image, manifest.views, prep.size, prep.resize_short) for image in images]
        return self.score_features(embed_views(self.backbone, np.stack(views), prep)) if views else []

    def score_features(self, features: npt.NDArray[np.float32]) -> list[Score]:
        """Score images whose backbone features (N, A, D) are known already."""
        manifest = self.bank.manifest
        images, count, dim = features.shape
        vectors = self.bank.head.apply(features.reshape(images * count, dim))
        taken = min(manifest.vectors, max(manifest.k, NEIGHBOURS))
        distances, rows = knn.nearest(self.bank.index, vectors, taken)
        kth = knn.kth_distance(distances, manifest.k).reshape(images, count)
        values = knn.geometric_mean(kth)
        owners = (rows // count).reshape(images, -1)
        scores = []
        for at, value in enumerate(values.tolist()):
            near = knn.neighbours(distances.reshape(images, -1)[at], owners[at], NEIGHBOURS)
            names = [self.bank.images[owner] for owner in near]
            scores.append(among_normals(value, manifest, self.bank.calibration, names, kth[at].tolist()))
        return scores

    @property
    def explains(self) -> bool:
        """Say whether the bank has what heat maps need."""
        return self.bank.patches is not None

    def explain(self, grey: Grey) -> Saliency:
        """Return where one image, as for `score_images`, lies far from normal.

        Raises
        ------
        BankError
            If the bank has no patches.
        """
        manifest = self.bank.manifest
        if self.bank.patches is None:
            raise BankError(f"bank {manifest.name} has no patches of normals, so there is no heat map")
        rate = manifest.false_positive_rate
        return explain(grey, self.bank.patches, self.backbone, manifest.preprocessing, rate)

    def provenance(self) -> Provenance:
        """Return what every report says of the bank and the algorithm."""
        return provenance_of(self.bank.manifest, self.bank.bank_hash, ALGORITHM)


AnyScorer = Scorer | SaladScorer | AlignedScorer
"""A scorer of one bank, whatever its kind."""


def load_scorer(folder: Path, backbones: dict[tuple[str, str], Backbone] | None = None) -> AnyScorer:
    """Load and verify a bank of any kind together with its backbone.

    Parameters
    ----------
    folder
        The bank. Weights of backbones that bring none stand beside it in ``weights/<sha256>``.
    backbones
        Backbones loaded before, by name and SHA-256; filled with the one loaded here.

    Raises
    ------
    BankError
        If bank or weights are missing or not what their hashes say.
    """
    kind = read_manifest(folder).kind
    if kind == "salad":
        return SaladScorer(load_salad_bank(folder))
    bank = load_aligned_bank(folder) if kind == "aligned-knn" else load_bank(folder)
    facts = bank.manifest.backbone
    key = (facts.name, facts.weights_sha256)
    cache = {} if backbones is None else backbones
    if key not in cache:
        own = folder.parent / WEIGHTS / facts.weights_sha256
        cache[key] = load_backbone(facts.name, own if ":" in facts.name else None)
    return AlignedScorer(bank, cache[key]) if isinstance(bank, AlignedBank) else Scorer(bank, cache[key])
