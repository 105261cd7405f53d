"""Aligned-map kNN: distance to the nearest normals among maps of registered chests, in the normals' subspace.

A method of this project beside the two papers. Knows nothing of headers, eligibility, or which bank is active.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.domain.types import Provenance, Score
from dicom_node.score.align import Placement
from dicom_node.score.aligned_bank import AlignedBank, Subspace
from dicom_node.score.aligned_maps import chest_maps, map_vectors
from dicom_node.score.aligned_places import FILE as PLACES
from dicom_node.score.aligned_places import METHOD, laid_back, place_distances
from dicom_node.score.backbone import Backbone, TorchBackbone
from dicom_node.score.measured import NEIGHBOURS, among_normals, provenance_of
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import Saliency, among_places
from dicom_node.score.views import make_views

ALGORITHM = (
    "k-nearest-neighbour distance among feature maps of registered chests, principal subspace of normals"
)

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

log = logging.getLogger(__name__)


def nearest(bank: Vectors, queries: Vectors, count: int) -> tuple[Floats, Rows]:
    """Return squared Euclidean distances (Q, count) float64 to the nearest rows of a bank, and those rows.

    Parameters
    ----------
    bank, queries
        (N, q) and (Q, q) float32.
    count
        From 1 to N; nearest first, ties by row.

    Raises
    ------
    BankError
        If the bank has fewer rows than `count`.
    """
    if not 1 <= count <= len(bank):
        raise BankError(f"{count} neighbours are asked of a bank of {len(bank)} vectors")
    exact = bank.astype(np.float64)
    distances = np.empty((len(queries), count), dtype=np.float64)
    rows = np.empty((len(queries), count), dtype=np.int64)
    for at, query in enumerate(queries.astype(np.float64)):
        every = np.square(exact - query).sum(axis=1)
        rows[at] = np.argsort(every, kind="stable")[:count]
        distances[at] = every[rows[at]]
    return distances, rows


def place_field(vector: Vectors, bank: Vectors, subspace: Subspace, k: int, grid: int) -> Vectors:
    """Return how far each place of a chest lies from those of its k nearest normals, (grid, grid) float32.

    Parameters
    ----------
    vector
        (1, D) float32, the chest's.
    bank
        (N, q) float32, the normals' coordinates.
    """
    _, rows = nearest(bank, subspace.project(vector), k)
    return place_distances(vector[0], subspace.shown(bank[rows[0]]), grid)


class AlignedScorer:
    """Scores images against one aligned-knn bank, behind the interface of `scoring.Scorer`. Safe between threads.

    Raises
    ------
    BankError
        If the backbone is not the one, to the byte, that made the bank.
    """

    def __init__(self, bank: AlignedBank, backbone: Backbone) -> None:
        wanted, facts = bank.manifest.backbone, bank.manifest.aligned
        if (backbone.name, backbone.weights_sha256) != (wanted.name, wanted.weights_sha256):
            raise BankError(
                f"bank {bank.manifest.name} was made with {wanted.name} of SHA-256 {wanted.weights_sha256}; "
                f"here is {backbone.name} of {backbone.weights_sha256}"
            )
        if facts is None or not isinstance(backbone, TorchBackbone):
            raise BankError(f"bank {bank.manifest.name} says nothing of its maps, or {backbone.name} has none")
        self.bank = bank
        self.backbone = backbone
        self._facts = facts

    def embed(self, image: Grey) -> tuple[Vectors, Placement]:
        """Return the coordinates (1, q) float32 of one grey image, and how it was laid over the template."""
        vector, placement = self._seen(image)
        return self.bank.subspace.project(vector), placement

    def _seen(self, image: Grey) -> tuple[Vectors, Placement]:
        bank, prep = self.bank, self.bank.manifest.preprocessing
        square = make_views(image, bank.manifest.views, prep.size, prep.resize_short)[0]
        maps, placement = chest_maps(square, bank.atlas.template, self.backbone.module, prep, self._facts)
        return map_vectors(maps, bank.atlas), placement

    @property
    def explains(self) -> bool:
        """Say whether the bank has what heat maps need."""
        return self.bank.places is not None

    def score_images(self, images: Sequence[Grey]) -> list[Score]:
        """Score grey images.

        An image that cannot be registered is scored as it lies; the log says so.

        Parameters
        ----------
        images
            Each (H, W) float32 in [0, 1], brighter is denser, made with the bank's window and rescale.

        Returns
        -------
        list of Score
            One for each image, in order: the squared distance to the k-th nearest normal, in [0, 4], with 6
            significant digits.
        """
        manifest, scores = self.bank.manifest, []
        for image in images:
            vector, placement = self.embed(image)
            if placement.note:
                log.warning(
                    "chest was not registered to the template; scored as it lies",
                    extra={"bank": manifest.name, "why": placement.note},
                )
            count = min(manifest.vectors, max(manifest.k, NEIGHBOURS))
            distances, rows = nearest(self.bank.vectors, vector, count)
            names = [self.bank.images[row] for row in rows[0, :NEIGHBOURS]]
            scores.append(
                among_normals(float(distances[0, manifest.k - 1]), manifest, self.bank.calibration, names)
            )
        return scores

    def explain(self, grey: Grey) -> Saliency:
        """Return where one image, as for `score_images`, lies far from its nearest normals.

        Raises
        ------
        BankError
            If the bank was built without what heat maps are calibrated with.
        """
        bank, manifest, facts = self.bank, self.bank.manifest, self._facts
        if bank.places is None:
            raise BankError(f"bank {manifest.name} has no {PLACES}, so there is no heat map: build it again")
        vector, placement = self._seen(grey)
        field = place_field(vector, bank.vectors, bank.subspace, manifest.k, facts.grid)
        distances = laid_back(field, placement, facts.box, bank.places.shift, (grey.shape[0], grey.shape[1]))
        return among_places(distances, float(field.max()), bank.places, manifest.false_positive_rate, METHOD)

    def provenance(self) -> Provenance:
        """Return what every report says of the bank and the algorithm."""
        return provenance_of(self.bank.manifest, self.bank.bank_hash, ALGORITHM)
