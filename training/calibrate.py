"""Which normals calibrate and which stand in the bank, and the calibration scores. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dicom_node.domain.errors import BankError
from dicom_node.score import knn
from training.dataset import Item
from training.index import Exact

Vectors = npt.NDArray[np.float32]

LEAVE_ONE_OUT = "leave-one-out"

_IMAGES = 256
"""Images compared with the bank at once."""


def unique_rows(items: Sequence[Item]) -> list[int]:
    """Return the rows of the first file of each distinct image."""
    first: dict[str, int] = {}
    for row, item in enumerate(items):
        first.setdefault(item.pixel_id, row)
    return sorted(first.values())


def split_patients(items: Sequence[Item], wanted: float, seed: int) -> tuple[list[int], list[int]]:
    """Split images between bank and calibration so that no patient stands on both sides.

    Parameters
    ----------
    wanted
        Share of the images in (0, 1), or their number from 1 on, that calibrate; reached or just exceeded.
    seed
        Of the shuffle of patients. The split depends on the order of the files and on nothing else.

    Returns
    -------
    bank, calibration : list of int
        Rows of `items`, ascending.

    Raises
    ------
    BankError
        If there is only one patient, or nothing would be left for the bank.
    """
    by_patient: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        by_patient.setdefault(item.patient, []).append(row)
    number = round(wanted * len(items)) if wanted < 1 else int(wanted)
    groups = list(by_patient.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    calibration: list[int] = []
    for at in order.tolist():
        if len(calibration) >= max(number, 1):
            break
        calibration += groups[at]
    held = set(calibration)
    bank = [row for row in range(len(items)) if row not in held]
    if not bank:
        raise BankError(
            f"{len(items)} images of {len(groups)} patients cannot give {number} to the "
            "calibration and leave any for the bank"
        )
    return bank, sorted(calibration)


def score_against(
    bank: Vectors, queries: Vectors, k: int, index: knn.Index | None = None
) -> npt.NDArray[np.float64]:
    """Return the scores (Q,) of images whose vectors (Q, A, D') are not in the bank's (N, A, D').

    Parameters
    ----------
    index
        Searches the bank as the node will; by default every vector is compared.
    """
    searched = index or _exact(bank)
    kth = np.empty(queries.shape[:2], dtype=np.float64)
    for at in range(0, len(queries), _IMAGES):
        part = queries[at : at + _IMAGES]
        distances, _ = knn.nearest(searched, part.reshape(-1, part.shape[2]), k)
        kth[at : at + _IMAGES] = knn.kth_distance(distances, k).reshape(part.shape[:2])
    return knn.geometric_mean(kth)


def score_leave_one_out(
    bank: Vectors, patients: Sequence[str], k: int, index: knn.Index | None = None
) -> npt.NDArray[np.float64]:
    """Return the score (N,) of every bank image against the bank without its own patient's images.

    Parameters
    ----------
    bank
        (N, A, D') float32, unit L2.
    patients
        Whose image each is.
    k
        From 1. With one image a patient and one view this is the (k + 1)-th distance in the whole bank.
    index
        As for `score_against`.

    Raises
    ------
    BankError
        If some patient's images leave fewer than k vectors.
    """
    count, views, _ = bank.shape
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    owners = np.array([numbers[patient] for patient in patients], dtype=np.int64)
    largest = int(np.bincount(owners).max()) * views
    if count * views < largest + k:
        raise BankError(f"leave-one-out needs {k} vectors of other patients; one patient has {largest} of all")
    searched = index or _exact(bank)
    kth = np.empty((count, views), dtype=np.float64)
    for row in range(count):
        distances, rows = knn.nearest(searched, bank[row], largest + k)
        kth[row] = knn.kth_distance_without(distances, owners[rows // views], int(owners[row]), k)
    return knn.geometric_mean(kth)


def _exact(bank: Vectors) -> knn.Index:
    return Exact(bank.reshape(-1, bank.shape[2]))
