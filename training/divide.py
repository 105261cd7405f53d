"""Which normals stand in the bank and which calibrate it: by patient, outliers looked for. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from training import calibrate, contamination
from training.contamination import Review
from training.dataset import Item
from training.embed import Embedded
from training.index import Built, build_index
from training.mapped import embeddings, gather
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
    """What stands in the bank, the index over it, and what calibrates it."""

    items: list[Item]
    vectors: Vectors
    scores: npt.NDArray[np.float64]
    how: str
    kept: Kept
    index: Built
    shared: int = 0


def distinct(embedded: Embedded, folder: Path) -> tuple[Embedded, int]:
    """Return the first file of each distinct image, and how many others there were.

    Parameters
    ----------
    folder
        For arrays (see `mapped`).
    """
    rows = calibrate.unique_rows(embedded.items)
    kept = Embedded(
        [embedded.items[row] for row in rows],
        gather(embedded.features, rows, folder),
        embedded.skipped,
        embedded.reused,
        [embedded.paths[row] for row in rows],
    )
    return kept, len(embedded.items) - len(rows)


def divide(order: Order, usable: Embedded, separate: Embedded | None, folder: Path) -> Parts:
    """Return what stands in the bank and the scores that calibrate it; no patient is on both sides.

    Parameters
    ----------
    usable
        The normals.
    separate
        Others, which calibrate; without them some of the normals do.
    folder
        For arrays (see `mapped`) and the index.

    Raises
    ------
    BankError
        If too few are left on one side.
    """
    vectors = embeddings(order.head, usable.features, folder)
    rows = list(range(len(usable.items)))
    if separate is not None:
        known = {item.pixel_id for item in usable.items} | {item.patient for item in usable.items}
        fresh, _ = distinct(separate, folder)
        others = [row for row, item in enumerate(fresh.items) if not {item.pixel_id, item.patient} & known]
        if len(others) < 2:
            raise BankError(
                f"{len(others)} calibration images of patients who are not in the bank; more are needed"
            )
        kept = _clean(order, usable, vectors, rows, folder)
        queries = embeddings(order.head, gather(fresh.features, others, folder), folder)
        index = build_index(order.index, kept.vectors, queries, order.k, folder, order.seed)
        scores = calibrate.score_against(kept.vectors, queries, order.k, index.searched)
        how = "separate" if order.calibration_images else "held-out"
        return Parts(kept.items, kept.vectors, scores, how, kept, index, len(fresh.items) - len(others))
    if isinstance(order.calibration, str):
        kept = _clean(order, usable, vectors, rows, folder)
        patients = [item.patient for item in kept.items]
        index = build_index(order.index, kept.vectors, None, order.k, folder, order.seed)
        scores = calibrate.score_leave_one_out(kept.vectors, patients, order.k, index.searched)
        if kept.dropped:
            left, whose = gather(vectors, kept.dropped, folder), [usable.items[row] for row in kept.dropped]
            apart = contamination.without(kept.vectors, kept.items, left, whose, order.k, index.searched)
            scores = np.concatenate([scores, apart])
        return Parts(kept.items, kept.vectors, scores, calibrate.LEAVE_ONE_OUT, kept, index)
    bank, held = calibrate.split_patients(usable.items, order.calibration, order.seed)
    kept = _clean(order, usable, vectors, bank, folder)
    queries = gather(vectors, held, folder)
    index = build_index(order.index, kept.vectors, queries, order.k, folder, order.seed)
    scores = calibrate.score_against(kept.vectors, queries, order.k, index.searched)
    return Parts(kept.items, kept.vectors, scores, "held-out", kept, index)


def _clean(order: Order, usable: Embedded, vectors: Vectors, rows: list[int], folder: Path) -> Kept:
    """Look for outliers among the rows meant for the bank, and leave out the share that was ordered."""
    items, paths = [usable.items[row] for row in rows], [usable.paths[row] for row in rows]
    meant = gather(vectors, rows, folder)
    found = contamination.review(meant, [item.patient for item in items], order.seed)
    stay = contamination.kept_rows(found, order.drop_outliers)
    dropped = sorted(set(range(len(rows))) - set(stay))
    table = contamination.review_csv(found, items, paths, dropped)
    return Kept([items[row] for row in stay], gather(meant, stay, folder), dropped, found, table)
