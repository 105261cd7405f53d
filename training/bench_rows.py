"""The rows of the benchmark: a table of named functions, each from features to scores.

A new method is one more `Row`. A row sees training normals, their features and a seed; it never sees a test
label. Labels of the training set serve to contaminate a bank, and to choose a row by: other images for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import faiss
import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from dicom_node.score.head import Head
from dicom_node.score.view_names import DEFAULT_VIEWS
from dicom_node.score.views import make_views
from training import controls
from training.bench_features import Features, Part
from training.contamination import kept_rows, review

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

VIEWS: dict[int, tuple[str, ...]] = {
    1: ("squash",),
    2: ("squash", "squash-flip"),
    5: tuple(view for view in DEFAULT_VIEWS if not view.endswith("-flip")),
    10: DEFAULT_VIEWS,
}
"""Which A views: the whole image; with its mirror; the five crops; the crops and their mirrors."""

NEIGHBOURS = (1, 5, 10, 20)
CONTAMINATION = (0.01, 0.02, 0.05, 0.10)
DROPPED = 0.10
"""Of a bank that is cleaned by its own outliers; a site does not know the true share either."""

SEEDS = (0, 1, 2)

CONTROL, ZERO_SHOT, CONTAMINATED = "control", "Deep kNN, identity head", "contaminated bank"
BANK = "bank built by `python -m training`, at its own threshold"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a row found. Scores are float64, higher is further from normal.

    Attributes
    ----------
    test
        (T,) of the test images; the bank holds every training normal, as the published figures do.
    held
        (H,) of the held-out training normals, against a bank without them.
    operating
        (T,) of the test images against that same bank: what the threshold from `held` applies to.
    planted
        (H,) of the held-out normals with an opacity drawn into each, against that bank; empty if nobody asks.
    validation
        (V,) of the training set's pneumonias for validation, against that bank; empty if nobody asks.
    """

    test: Floats
    held: Floats
    operating: Floats
    planted: Floats = field(default_factory=lambda: np.empty(0))
    validation: Floats = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration.

    Attributes
    ----------
    group
        What kind of row it is; rows of `CONTROL` are what the others must beat.
    name
        Unique; what a person may choose it by.
    run
        From features and a seed to scores.
    seeds
        One where nothing is random. Figures are means over them.
    """

    group: str
    name: str
    run: Callable[[Features, int], Outcome]
    seeds: Sequence[int] = (0,)


def all_rows() -> list[Row]:
    """Return every row, in the order of the table."""
    rows = [Row(CONTROL, name, partial(_trivial, at)) for at, name in enumerate(controls.NAMES)]
    rows.append(Row(CONTROL, "raw 32 x 32 pixels, k 5", _pixels))
    rows.append(Row(CONTROL, "lite0 with random weights, A 1, k 5", _random_weights))
    rows += [
        Row(ZERO_SHOT, f"lite0, A {count}, k {k}", partial(zero_shot, count, k, "127"))
        for count in VIEWS
        for k in NEIGHBOURS
    ]
    rows.append(Row(ZERO_SHOT, "lite0, A 1, k 5, ImageNet mean and std", partial(zero_shot, 1, 5, "imagenet")))
    rows += [
        Row(
            CONTAMINATED,
            f"{share:.0%} pneumonia, lite0, A 1, k {k}",
            partial(contaminated, share, 0.0, k),
            SEEDS,
        )
        for k in (1, 5, 20)
        for share in CONTAMINATION
    ]
    rows += [
        Row(
            CONTAMINATED,
            f"{share:.0%} pneumonia, farthest {DROPPED:.0%} left out, lite0, A 1, k {k}",
            partial(contaminated, share, DROPPED, k),
            SEEDS if share else (0,),
        )
        for k in (1, 5)
        for share in (0.0, *CONTAMINATION)
    ]
    return rows


def neighbours(bank: Vectors, queries: Vectors, ks: Sequence[int]) -> dict[int, Floats]:
    """Return Deep kNN's score (Q,) by k of queries (Q, A, D) against a bank (N, A, D), of any length."""
    index = faiss.IndexFlatL2(bank.shape[2])
    index.add(np.ascontiguousarray(_unit(bank).reshape(-1, bank.shape[2])))
    count, views, dim = queries.shape
    distances, _ = knn.nearest(index, _unit(queries).reshape(-1, dim), max(ks))
    return {k: knn.geometric_mean(knn.kth_distance(distances, k).reshape(count, views)) for k in ks}


def outcomes(
    features: Features, whole: Vectors, reduced: Vectors, train: Vectors, test: Vectors, ks: Sequence[int]
) -> dict[int, Outcome]:
    """Return what one set of vectors gives, by k.

    Parameters
    ----------
    whole, reduced
        The bank (N, A, D), and the one without the held-out normals.
    train, test
        (N, A, D) and (T, A, D), of every training normal and of the test images.
    """
    held = train[features.data.held_out]
    of_test, of_held, operating = (
        neighbours(*pair, ks) for pair in ((whole, test), (reduced, held), (reduced, test))
    )
    return {k: Outcome(of_test[k], of_held[k], operating[k]) for k in ks}


def clean(features: Features, train: Vectors, test: Vectors, ks: Sequence[int]) -> dict[int, Outcome]:
    """Return the outcomes where the bank is the training normals."""
    return outcomes(features, train, train[~features.data.held_out], train, test, ks)


def zero_shot(count: int, k: int, normalise: str, features: Features, _seed: int) -> Outcome:
    """Deep kNN's scoring on frozen features: A views, k-th neighbour, no head."""
    data = features.data

    def every_k() -> dict[int, Outcome]:
        parts = (data.train, data.test, data.planted, data.validation)
        train, test, *asked = (features.of(p, VIEWS[count], normalise=normalise) for p in parts)
        planted, validation = (neighbours(train[~data.held_out], one, NEIGHBOURS) for one in asked)
        of_rest = clean(features, train, test, NEIGHBOURS)
        return {k: replace(one, planted=planted[k], validation=validation[k]) for k, one in of_rest.items()}

    return features.once(f"zero-shot {count} {normalise}", every_k)[k]


def contaminated(share: float, drop: float, k: int, features: Features, seed: int) -> Outcome:
    """The same with so many unnoticed pneumonias in the bank that they are this share of it.

    The farthest `drop` of the bank's images, judged by `contamination.review` without labels, is left out.
    """
    data = features.data

    def every_k() -> dict[int, Outcome]:
        train, test, sick = (features.of(p, VIEWS[1]) for p in (data.train, data.test, data.contaminants))
        order = np.random.default_rng(seed).permutation(len(sick))

        def bank(normals: npt.NDArray[np.int64]) -> Vectors:
            wanted = round(share / (1 - share) * len(normals))
            if wanted > len(sick):
                raise BankError(f"{wanted} contaminants are needed, there are {len(sick)}")
            vectors = np.concatenate([train[normals], sick[order[:wanted]]])
            patients = [data.train.patients[row] for row in normals]
            patients += [data.contaminants.patients[row] for row in order[:wanted]]
            return vectors[kept_rows(review(_unit(vectors), patients), drop)] if drop else vectors

        whole, reduced = bank(np.arange(len(train))), bank(np.flatnonzero(~data.held_out))
        return outcomes(features, whole, reduced, train, test, NEIGHBOURS)

    return features.once(f"contaminated {share} {drop} {seed}", every_k)[k]


def _trivial(which: int, features: Features, _seed: int) -> Outcome:
    def measured(part: Part) -> Floats:
        greys = features.greys(part)
        return np.array([controls.measure(p, g)[which] for p, g in zip(part.files, greys, strict=True)])

    data = features.data
    test, train, validation = (measured(part) for part in (data.test, data.train, data.validation))
    turned, sign = controls.oriented(data.labels, test)
    return Outcome(turned, sign * train[data.held_out], turned, validation=sign * validation)


def _pixels(features: Features, _seed: int) -> Outcome:
    def flat(part: Part) -> Vectors:
        small = np.stack([make_views(grey, ("squash",), 32, 32) for grey in features.greys(part)])
        return small.reshape(len(small), 1, -1)

    return clean(features, flat(features.data.train), flat(features.data.test), (5,))[5]


def _random_weights(features: Features, _seed: int) -> Outcome:
    data = features.data
    train, test = (features.of(part, VIEWS[1], controls.RANDOM_BACKBONE) for part in (data.train, data.test))
    return clean(features, train, test, (5,))[5]


def _unit(vectors: Vectors) -> Vectors:
    count, views, dim = vectors.shape
    return Head().apply(vectors.reshape(-1, dim)).reshape(count, views, dim)
