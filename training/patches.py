"""Adds patches to a bank: a coreset of what normals look like at each place, and its calibration.

Reads a bounded number of the bank's files a second time, one after another: memory does not grow with the bank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.files import read_image
from dicom_node.score.heat_scale import LEVELS, scale_of
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import PatchBank, Places
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import distance_field, see
from training.calibrate import split_patients
from training.coreset import Sample, greedy
from training.dataset import Item
from training.embed import Embedded
from training.order import DEFAULT_PATCHES, Order

POSITION_WEIGHT = 2.0
"""Measured on phantoms with planted lesions; see tests/bench/bench_saliency.py."""

VIEWS = ("squash",)
"""One look at the whole image."""

MOST_REFERENCES, MOST_CALIBRATION = 400, 200
"""Images that are read for patches and for their calibration; of more, a seeded choice is taken."""

LEFT_OUT = 0.2
"""Share of a bank that calibrates its patches where nothing else does."""

CANDIDATES = 10
"""The coreset is chosen out of this many candidates for each patch."""


def learn_patches(
    references: Callable[[], Iterator[Grey]],
    calibration: Callable[[], Iterator[Grey]],
    backbone: Backbone,
    preprocessing: Preprocessing,
    *,
    count: int = DEFAULT_PATCHES,
    seed: int = 0,
    position_weight: float = POSITION_WEIGHT,
    coreset: str = "greedy",
    views: tuple[str, ...] = VIEWS,
) -> PatchBank:
    """Return the patches of normal images.

    Parameters
    ----------
    references, calibration
        Give grey images one after another; of different patients.
    count
        Patches wanted.
    coreset
        "greedy", or "random" for a uniform sample.

    Raises
    ------
    BankError
        If the backbone gives no map, or there are no images on one side.
    """
    if not backbone.map_stage:
        raise BankError(f"backbone {backbone.name} gives no map of features, so a bank of it has no patches")
    shift = backbone.map_shift(preprocessing.size)
    sample, images = Sample(count * CANDIDATES if coreset == "greedy" else count, seed), 0
    for images, grey in enumerate(references(), 1):  # noqa: B007 - counts
        places, _, _ = see(grey, views, shift, backbone, preprocessing)
        sample.add(places.joined(1.0))
    if not images:
        raise BankError("no image to take patches from")
    rows = sample.rows()
    if coreset == "greedy":
        scaled = Places(rows[:, :-2], rows[:, -2:]).joined(position_weight)
        rows = rows[np.sort(greedy(scaled, count, seed))]
    bank = PatchBank(
        vectors=np.ascontiguousarray(rows[:, :-2]),
        positions=np.ascontiguousarray(rows[:, -2:]),
        normal=np.zeros(len(LEVELS), dtype=np.float32),
        peaks=np.zeros(1, dtype=np.float32),
        stage=backbone.map_stage,
        views=views,
        shift=shift,
        position_weight=position_weight,
        coreset=coreset,
        seed=seed,
        references=images,
    )
    return _calibrated(bank, calibration, backbone, preprocessing)


def _calibrated(
    bank: PatchBank,
    calibration: Callable[[], Iterator[Grey]],
    backbone: Backbone,
    preprocessing: Preprocessing,
) -> PatchBank:
    fields = [distance_field(grey, bank, backbone, preprocessing) for grey in calibration()]
    normal, peaks = scale_of(fields)
    return replace(bank, normal=normal, peaks=peaks)


def patches_for(
    order: Order, usable: Embedded, separate: Embedded | None, bank: Sequence[Item], backbone: Backbone
) -> PatchBank | None:
    """Return the patches that an order wants, learnt from the files of the bank that it makes.

    The images that calibrate the bank calibrate its patches too; with leave-one-out, a fifth of the bank's
    patients do, and give no patches. At most `MOST_REFERENCES` and `MOST_CALIBRATION` files are read.

    Parameters
    ----------
    usable, separate
        As for `training.divide.divide`.
    bank
        The images that stand in the bank.
    backbone
        As it embedded them.

    Returns
    -------
    PatchBank or None
        None if the order wants none, or the backbone gives no map.
    """
    if not order.patches or not backbone.map_stage:
        return None
    items, paths = list(usable.items), list(usable.paths)
    in_bank = {item.file_id for item in bank}
    rows = [row for row, item in enumerate(items) if item.file_id in in_bank]
    if separate is not None:
        known = {item.pixel_id for item in items} | {item.patient for item in items}
        others = [
            len(items) + row
            for row, item in enumerate(separate.items)
            if not {item.pixel_id, item.patient} & known
        ]
        items, paths = items + separate.items, paths + separate.paths
    elif isinstance(order.calibration, str):
        stay, leave = split_patients([items[row] for row in rows], LEFT_OUT, order.seed)
        rows, others = [rows[at] for at in stay], [rows[at] for at in leave]
    else:
        _, others = split_patients(items, order.calibration, order.seed)
    random = np.random.default_rng(order.seed)
    chosen, held = _some(rows, MOST_REFERENCES, random), _some(others, MOST_CALIBRATION, random)
    return learn_patches(
        reading([paths[row] for row in chosen], order.preprocessing),
        reading([paths[row] for row in held], order.preprocessing),
        backbone,
        order.preprocessing,
        count=order.patches,
        seed=order.seed,
    )


def reading(paths: Sequence[Path], preprocessing: Preprocessing) -> Callable[[], Iterator[Grey]]:
    """Return what reads these files one after another as grey images."""

    def read() -> Iterator[Grey]:
        for path in paths:
            yield read_image(path, window=preprocessing.window, rescale=preprocessing.rescale)[0]

    return read


def _some(rows: list[int], most: int, random: np.random.Generator) -> list[int]:
    return rows if len(rows) <= most else sorted(random.choice(rows, most, replace=False).tolist())
