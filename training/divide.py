"""Which normals stand in the bank and which calibrate it: by patient, outliers looked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score.head import Head
from training import calibrate, contamination
from training.contamination import Review
from training.dataset import Item
from training.embed import Embedded
from training.order import Order

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands in the bank after its outliers were looked for, and what they are."""

    items: list[Item]
    vectors: Vectors
    dropped: list[int]
    found: Review
    table: bytes


@dataclass(frozen=True, slots=True)
class Parts:
    """What stands in the bank and what calibrates it."""

    items: list[Item]
    vectors: Vectors
    scores: npt.NDArray[np.float64]
    how: str
    kept: Kept
    shared: int = 0


def distinct(embedded: Embedded) -> tuple[Embedded, int]:
    """Return the first file of each distinct image, and how many others there were."""
    rows = calibrate.unique_rows(embedded.items)
    kept = Embedded(
        [embedded.items[row] for row in rows],
        embedded.features[rows],
        embedded.skipped,
        embedded.reused,
        [embedded.paths[row] for row in rows],
    )
    return kept, len(embedded.items) - len(rows)


def divide(order: Order, usable: Embedded, separate: Embedded | None) -> Parts:
    """Return what stands in the bank and the scores that calibrate it; no patient is on both sides.

    Parameters
    ----------
    usable
        The normals.
    separate
        Others, which calibrate; without them some of the normals do.

    Raises
    ------
    BankError
        If too few are left on one side.
    """
    vectors = _embeddings(order.head, usable.features)
    rows = list(range(len(usable.items)))
    if separate is not None:
        known = {item.pixel_id for item in usable.items} | {item.patient for item in usable.items}
        fresh, _ = distinct(separate)
        others = [row for row, item in enumerate(fresh.items) if not {item.pixel_id, item.patient} & known]
        if len(others) < 2:
            raise BankError(
                f"{len(others)} calibration images of patients who are not in the bank; more are needed"
            )
        kept = _clean(order, usable, vectors, rows)
        queries = _embeddings(order.head, fresh.features[others])
        scores = calibrate.score_against(kept.vectors, queries, order.k)
        how = "separate" if order.calibration_images else "held-out"
        return Parts(kept.items, kept.vectors, scores, how, kept, len(fresh.items) - len(others))
    if isinstance(order.calibration, str):
        kept = _clean(order, usable, vectors, rows)
        scores = calibrate.score_leave_one_out(kept.vectors, [item.patient for item in kept.items], order.k)
        if kept.dropped:
            left = contamination.without(vectors, usable.items, kept.dropped, order.k)
            scores = np.concatenate([scores, left])
        return Parts(kept.items, kept.vectors, scores, calibrate.LEAVE_ONE_OUT, kept)
    bank, held = calibrate.split_patients(usable.items, order.calibration, order.seed)
    kept = _clean(order, usable, vectors, bank)
    scores = calibrate.score_against(kept.vectors, vectors[held], order.k)
    return Parts(kept.items, kept.vectors, scores, "held-out", kept)


def _clean(order: Order, usable: Embedded, vectors: Vectors, rows: list[int]) -> Kept:
    """Look for outliers among the rows meant for the bank, and leave out the share that was ordered."""
    items, paths = [usable.items[row] for row in rows], [usable.paths[row] for row in rows]
    found = contamination.review(vectors[rows], [item.patient for item in items], order.seed)
    stay = contamination.kept_rows(found, order.drop_outliers)
    dropped = sorted(set(range(len(rows))) - set(stay))
    table = contamination.review_csv(found, items, paths, dropped)
    return Kept([items[row] for row in stay], vectors[[rows[row] for row in stay]], dropped, found, table)


def _embeddings(head: Head, features: Vectors) -> Vectors:
    count, views, dim = features.shape
    return head.apply(features.reshape(count * views, dim)).reshape(count, views, -1)
