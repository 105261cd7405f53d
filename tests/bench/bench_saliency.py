"""Do heat maps find planted lesions? Hit rate and pixel AUROC on phantoms, for several ways to choose patches.

``make bench`` prints it. A hit: the farthest place lies in the lesion's mask, or within 1 cm of it. Image AUROC:
lesions against other normals by the farthest place. The first row is what ``python -m training build`` does; the row
"by place" is the same with each place's distance relative to held-out normals' there, (d - mean) / std, both smoothed;
the last is ``python -m training build-aligned``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from sklearn.metrics import roc_auc_score

from dicom_node.score.align import Placement
from dicom_node.score.aligned import place_field
from dicom_node.score.aligned_maps import chest_maps, map_vectors
from dicom_node.score.aligned_places import laid_back
from dicom_node.score.backbone import Backbone, TorchBackbone, load_backbone
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from dicom_node.score.patch_bank import Floats, PatchBank
from dicom_node.score.pixels import Grey
from dicom_node.score.saliency import distance_field, explain, resample
from dicom_node.score.views import make_views
from training import patches
from training.aligned_fit import fit
from training.phantoms import LESIONS, Phantom, make

SHAPE = (384, 315)
NORMALS = int(os.environ.get("DICOM_NODE_SALIENCY_NORMALS", "150"))
CALIBRATION, OTHERS = NORMALS // 3, NORMALS // 5
LESIONS_EACH = int(os.environ.get("DICOM_NODE_SALIENCY_LESIONS", "16"))
TOLERANCE_MM = 10.0

SMOOTHED = 4.0
"""Cells of the field over which the normals' mean and variance at a place are taken."""

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "anywhere (weight 0)": {"position_weight": 0.0},
    "weight 5": {"position_weight": 5.0},
    "random": {"coreset": "random"},
    "and mirrored": {"views": ("squash", "squash-flip")},
    "1000 patches": {"count": 1000},
}


def test_saliency() -> None:
    """Print the table."""
    backbone, prep = load_backbone("lite0"), Preprocessing()
    normals = [make(seed, shape=SHAPE) for seed in range(NORMALS + CALIBRATION + OTHERS)]
    bank, held, others = np.split(np.arange(len(normals)), [NORMALS, NORMALS + CALIBRATION])
    sick = {
        lesion: [make(9000 + seed, lesion=lesion, shape=SHAPE) for seed in range(LESIONS_EACH)]
        for lesion in LESIONS
    }

    def images(rows: np.ndarray) -> Callable[[], Iterator[np.ndarray]]:
        return lambda: (normals[row].image for row in rows)

    print(
        f"\nLite0, {NORMALS} normals, {CALIBRATION} calibrate, {LESIONS_EACH} of each lesion, {OTHERS} other normals"
    )
    print("hit rate / pixel AUROC / image AUROC; other normals with a region; seconds of CPU to learn")
    print(f"{'':22s}" + "".join(f"{lesion:>22s}" for lesion in LESIONS))
    for name, options in VARIANTS.items():
        began = time.process_time()
        learnt = patches.learn_patches(images(bank), images(held), backbone, prep, **options)
        seconds = time.process_time() - began
        field = partial(_patch_field, learnt, backbone, prep)
        normal = [field(normals[row].image) for row in others]
        print(_row(name, field, sick, normal, learnt.peak_threshold(0.05)) + f"{seconds:>7.1f} s")
        if name == "default":
            print(_relative_row(field, [field(normals[row].image) for row in held], sick, normal))
    print(_aligned(normals, bank, held, others, sick, backbone))
    ramp = np.tile(np.linspace(0.0, 1.0, 2048, dtype=np.float32), (2500, 1))
    began = time.process_time()
    explain(ramp, learnt, backbone, prep, 0.05)
    print(f"one heat map of 2500 x 2048: {time.process_time() - began:.2f} s of CPU")


def _patch_field(learnt: PatchBank, backbone: Backbone, prep: Preprocessing, image: Grey) -> Floats:
    return distance_field(image, learnt, backbone, prep)


def _relative_row(
    field: Callable[[Grey], Floats], held: list[Floats], sick: dict[str, list[Phantom]], normal: list[Floats]
) -> str:
    relative, limit = _by_place(np.stack(held))
    return _row(
        "by place", lambda image: relative(field(image)), sick, [relative(one) for one in normal], limit
    )


def _by_place(held: Floats) -> tuple[Callable[[Floats], Floats], float]:
    """Return what makes a field relative to normals' at each place, and what 5 % of them exceed, each left out."""

    def stated(fields: Floats) -> tuple[Floats, Floats]:
        mean = gaussian_filter(fields.mean(axis=0), SMOOTHED, mode="nearest")
        spread = np.sqrt(gaussian_filter(fields.var(axis=0, ddof=1), SMOOTHED, mode="nearest"))
        return mean, np.maximum(spread, 0.5 * np.median(spread))

    def against(field: Floats, mean: Floats, spread: Floats) -> Floats:
        return (field - mean) / spread

    peaks = [against(one, *stated(np.delete(held, at, axis=0))).max() for at, one in enumerate(held)]
    every = stated(held)
    return (lambda field: against(field, *every)), float(np.sort(peaks)[len(peaks) - 1 - len(peaks) // 20])


def _aligned(
    normals: list[Phantom],
    bank: np.ndarray,
    held: np.ndarray,
    others: np.ndarray,
    sick: dict[str, list[Phantom]],
    backbone: TorchBackbone,
) -> str:
    """Return the row of an aligned-knn bank."""
    mean, std = NORMALISATIONS["127"]
    prep, began = Preprocessing(mean=mean, std=std), time.process_time()

    def square(image: Grey) -> Grey:
        return make_views(image, ("squash",), prep.size, prep.resize_short)[0]

    def take(rows: Sequence[int]) -> Grey:
        return np.stack([square(normals[bank[row]].image) for row in rows])

    fitted = fit(take, [str(row) for row in bank], backbone.module, prep, 0, lambda _: None)
    known = np.stack([fitted.coordinates[row] for row in range(len(bank))])
    shift = backbone.map_shift(prep.size)

    def grid(image: Grey) -> tuple[Floats, Placement]:
        maps, placement = chest_maps(square(image), fitted.atlas.template, backbone.module, prep, fitted.facts)
        vector = map_vectors(maps, fitted.atlas)
        return place_field(vector, known, fitted.subspace, 5, fitted.facts.grid), placement

    def field(image: Grey) -> Floats:
        """Return the distances in the image's own pixels; outside of the box the least."""
        distances, placement = grid(image)
        back = laid_back(distances, placement, fitted.facts.box, shift, (image.shape[0], image.shape[1]))
        return np.nan_to_num(back, nan=float(np.nanmin(back)))

    limit = np.sort([grid(normals[row].image)[0].max() for row in held])
    seconds = time.process_time() - began
    normal = [field(normals[row].image) for row in others]
    row = _row("aligned-knn", field, sick, normal, float(limit[-1 - len(limit) // 20]))
    return row + f"{seconds:>7.1f} s"


def _row(
    name: str,
    field: Callable[[Grey], Floats],
    sick: dict[str, list[Phantom]],
    normal: list[Floats],
    limit: float,
) -> str:
    peaks = [float(one.max()) for one in normal]
    cells = [_cell(field, phantoms, peaks) for phantoms in sick.values()]
    above = float(np.mean(np.array(peaks) > limit))
    return f"{name:22s}" + "".join(f"{cell:>22s}" for cell in cells) + f"{above:>6.0%}"


def _cell(field: Callable[[Grey], Floats], phantoms: list[Phantom], normal: list[float]) -> str:
    hits, pixels, peaks = [], [], []
    for phantom in phantoms:
        seen = field(phantom.image)
        distances = seen if seen.shape == phantom.image.shape else resample(seen, *phantom.image.shape)
        away = distance_transform_edt(~phantom.mask) * phantom.spacing
        hits.append(away.ravel()[int(distances.argmax())] <= TOLERANCE_MM)
        pixels.append(roc_auc_score(phantom.mask.ravel(), distances.ravel()))
        peaks.append(float(seen.max()))
    image = roc_auc_score([0] * len(normal) + [1] * len(peaks), normal + peaks)
    return f"{np.mean(hits):.2f} / {np.mean(pixels):.3f} / {image:.2f}"
