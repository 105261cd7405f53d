"""Which configuration would be chosen without the test's labels. Pure.

Two rules know no label at all, only held-out normals. `least_spread` was written down before anybody looked at what it
chooses: the score by which normals that do not stand in the bank look most alike. Scores of different k and A differ in
scale; their logarithm does not, so the spread is that of the logarithm. `most_planted` came when the first had failed:
the score by which a drawn opacity (see `planted`) stands out most. Its drawing was fixed before it was first used.

`most_validated` knows labels of training images: the row by which their pneumonias lie farthest beyond held-out
normals. It was written down, and its images drawn, before any row had scored them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dicom_node.score.knn import FLOOR
from training.bench_judge import Judged


def spread(one: Judged) -> float:
    """Return the standard deviation of the logarithm of the held-out normals' scores, as a mean over seeds."""
    return float(np.mean([np.std(np.log(np.maximum(held, FLOOR))) for held in one.held]))


def least_spread(rows: Sequence[Judged]) -> Judged:
    """Return the row of the smallest spread, the first of equal ones."""
    return min(rows, key=spread)


def most_planted(rows: Sequence[Judged]) -> Judged:
    """Return the row by which the drawn opacities stand out most, the first of equal ones."""
    return max(rows, key=lambda row: row.planted or 0.0)


def most_validated(rows: Sequence[Judged]) -> Judged:
    """Return the row of the highest AUROC on the training set's labels, the first of equal ones."""
    return max(rows, key=lambda row: row.validation.value if row.validation else 0.0)
