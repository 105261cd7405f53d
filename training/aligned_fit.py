"""Learns what normal chests look like for aligned-map kNN: template, channel statistics, principal subspace.

Everything follows from the images given, which are normals of the bank; the number of directions is chosen by how
likely normals of patients that had no part in the subspace are under it. Pure but for the network it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from dicom_node.domain.errors import BankError
from dicom_node.score.aligned_bank import Subspace
from dicom_node.score.aligned_facts import AlignedFacts
from dicom_node.score.aligned_maps import Atlas, chest_maps, map_vectors
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.pixels import Grey
from training.template import make_template

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

MOST = 1500
"""Images that the fit looks at, at most: it holds their maps and their vectors in memory, 182 kB each."""

HELD_OUT = 0.2
"""Share of the patients that judge the number of directions."""

DIRECTIONS = (2, 4, 6, 8, 10, 15, *range(20, 401, 20))
"""Numbers of directions that are tried."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learned.

    Attributes
    ----------
    facts
        For the manifest.
    likelihoods
        Mean negative log-likelihood of the held-out normals, by number of directions.
    coordinates
        By row, (q,) float32 of every image that the fit looked at, as the scorer would give them.
    not_registered
        How many of those images could not be registered and were used as they lie.
    """

    atlas: Atlas
    subspace: Subspace
    facts: AlignedFacts
    likelihoods: dict[int, float]
    coordinates: dict[int, Vectors]
    not_registered: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Principal components of vectors.

    Attributes
    ----------
    centre
        (D,) float32.
    variances
        (n,) float64, descending.
    directions
        (n, D) float32, orthonormal rows.
    """

    centre: Vectors
    variances: Floats
    directions: Vectors


def fit(
    take: Callable[[Sequence[int]], Grey],
    patients: Sequence[str],
    module: nn.Module,
    preprocessing: Preprocessing,
    seed: int,
    progress: Callable[[int], None],
) -> Fitted:
    """Learn from normals.

    Parameters
    ----------
    take
        From rows to square images (n, S, S) float32 in [0, 1].
    patients
        Whose image each is; `MOST` images are drawn where there are more.
    progress
        Told how many images' maps each step has made.

    Raises
    ------
    BankError
        If there are fewer than two patients or the network lacks the stages.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(patients))[:MOST]).tolist()
    draft = AlignedFacts(
        grid=max(1, preprocessing.size // 16), fitted_images=len(rows), held_out_images=1, seed=seed
    )
    template = make_template(lambda some: take([rows[at] for at in some]), len(rows), seed)
    maps, lost = _maps(take, rows, template, module, preprocessing, draft, progress)
    atlas = _atlas(template, maps)
    vectors = np.concatenate(
        [map_vectors([one[at : at + 32] for one in maps], atlas) for at in range(0, len(rows), 32)]
    )
    del maps
    held = held_out([patients[row] for row in rows], seed)
    count, likelihoods = choose(vectors[~held], vectors[held])
    whole = principal(vectors, count)
    basis = whole.directions.astype(np.float16).astype(np.float32)
    facts = draft.model_copy(update={"held_out_images": int(held.sum())})
    subspace = Subspace(whole.centre, basis)
    coordinates = {row: subspace.project(one[None])[0] for row, one in zip(rows, vectors, strict=True)}
    return Fitted(atlas, subspace, facts, likelihoods, coordinates, lost)


def held_out(patients: Sequence[str], seed: int) -> npt.NDArray[np.bool_]:
    """Return which images (n,) judge the number of directions: those of a fifth of the patients.

    Raises
    ------
    BankError
        If there are fewer than two patients.
    """
    different = list(dict.fromkeys(patients))
    if len(different) < 2:
        raise BankError(f"the images are of {len(different)} patients; some must judge what others teach")
    order = np.random.default_rng(seed).permutation(len(different))
    chosen = {different[at] for at in order[: max(1, int(HELD_OUT * len(different)))].tolist()}
    return np.array([patient in chosen for patient in patients], dtype=np.bool_)


def principal(vectors: Vectors, count: int) -> Principal:
    """Return the principal components of vectors (n, D), by way of their (n, n) products: n is far below D.

    Parameters
    ----------
    count
        Directions wanted; those without variance are left out. All variances are returned.
    """
    centre = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    apart = vectors - centre
    products = (apart @ apart.T).astype(np.float64)
    squares, own = np.linalg.eigh(products)
    squares, own = np.maximum(squares[::-1], 0.0), own[:, ::-1]
    kept = min(count, int((squares > 1e-7 * squares[0]).sum()))
    directions = (own[:, :kept] / np.sqrt(squares[:kept])).astype(np.float32).T @ apart
    return Principal(centre, squares / len(vectors), np.ascontiguousarray(directions))


def choose(vectors: Vectors, held: Vectors) -> tuple[int, dict[int, float]]:
    """Return the number of directions under which held-out normals are likeliest, and what each number gave.

    Probabilistic PCA (Tipping and Bishop, 1999): along each direction kept a Gaussian of its variance, in all
    others one of their mean variance.

    Raises
    ------
    BankError
        If there are too few images for even the smallest number.
    """
    tried = [count for count in DIRECTIONS if count < len(vectors) - 1]
    if not tried:
        raise BankError(f"{len(vectors)} images cannot teach {DIRECTIONS[0]} directions; more are needed")
    learned = principal(vectors, tried[-1])
    apart = held - learned.centre
    whole = np.square(apart, dtype=np.float64).sum(axis=1)
    along = (apart @ learned.directions.T).astype(np.float64)
    likelihoods = {}
    for count in tried:
        if count > along.shape[1]:
            break
        inside, others = learned.variances[:count], vectors.shape[1] - count
        rest = max(learned.variances[count:].sum() / others, 1e-12)
        outside = whole - np.square(along[:, :count]).sum(axis=1)
        each = (np.square(along[:, :count]) / inside).sum(axis=1) + outside / rest
        likelihoods[count] = float(0.5 * (each.mean() + np.log(inside).sum() + others * np.log(rest)))
    return min(likelihoods, key=lambda count: likelihoods[count]), likelihoods


def _maps(
    take: Callable[[Sequence[int]], Grey],
    rows: Sequence[int],
    template: Vectors,
    module: nn.Module,
    preprocessing: Preprocessing,
    facts: AlignedFacts,
    progress: Callable[[int], None],
) -> tuple[list[Vectors], int]:
    """Return the maps of every stage, (n, C, G, G) float32 each, and how many images were not registered."""
    found: list[Vectors] = []
    lost = 0
    for number, row in enumerate(rows):
        maps, placement = chest_maps(take([row])[0], template, module, preprocessing, facts)
        lost += bool(placement.note)
        if not found:
            found = [np.empty((len(rows), *one.shape[1:]), dtype=np.float32) for one in maps]
        for kept, one in zip(found, maps, strict=True):
            kept[number] = one[0]
        progress(1)
    return found, lost


def _atlas(template: Vectors, maps: Sequence[Vectors]) -> Atlas:
    means, deviations = [], []
    for one in maps:
        mean = one.mean(axis=(0, 2, 3), dtype=np.float64)
        squares = np.zeros_like(mean)
        for image in one:
            squares += np.square(image.astype(np.float64) - mean[:, None, None]).mean(axis=(1, 2))
        means.append(mean)
        deviations.append(np.sqrt(squares / len(one)) + 1e-6)
    return Atlas(template, *(np.concatenate(v).astype(np.float32) for v in (means, deviations)))
