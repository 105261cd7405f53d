"""Do heat maps find planted lesions? Hit rate and pixel AUROC on phantoms, for several ways to choose patches.

``make bench`` prints it. A hit: the farthest place lies in the lesion's mask, or within 1 cm of it. Image AUROC:
lesions against other normals by the farthest place. The first row is what ``python -m training build`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import roc_auc_score

from dicom_node.score.backbone import Backbone, load_backbone
from dicom_node.score.manifest import Preprocessing
from dicom_node.score.patch_bank import PatchBank
from dicom_node.score.saliency import distance_field, explain, resample
from training import patches
from training.phantoms import LESIONS, Phantom, make

SHAPE = (384, 315)
NORMALS, CALIBRATION, OTHERS, LESIONS_EACH = 150, 50, 30, 16
TOLERANCE_MM = 10.0

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
        peaks = [float(distance_field(normals[row].image, learnt, backbone, prep).max()) for row in others]
        cells = [_cell(learnt, sick[lesion], peaks, backbone, prep) for lesion in LESIONS]
        above = np.mean(np.array(peaks) > learnt.peak_threshold(0.05))
        print(f"{name:22s}" + "".join(f"{cell:>22s}" for cell in cells) + f"{above:>6.0%}{seconds:>7.1f} s")
    ramp = np.tile(np.linspace(0.0, 1.0, 2048, dtype=np.float32), (2500, 1))
    began = time.process_time()
    explain(ramp, learnt, backbone, prep, 0.05)
    print(f"one heat map of 2500 x 2048: {time.process_time() - began:.2f} s of CPU")


def _cell(
    learnt: PatchBank, phantoms: list[Phantom], normal: list[float], backbone: Backbone, prep: Preprocessing
) -> str:
    hits, pixels, peaks = [], [], []
    for phantom in phantoms:
        field = distance_field(phantom.image, learnt, backbone, prep)
        distances = resample(field, *phantom.image.shape)
        away = distance_transform_edt(~phantom.mask) * phantom.spacing
        hits.append(away.ravel()[int(distances.argmax())] <= TOLERANCE_MM)
        pixels.append(roc_auc_score(phantom.mask.ravel(), distances.ravel()))
        peaks.append(float(field.max()))
    image = roc_auc_score([0] * len(normal) + [1] * len(peaks), normal + peaks)
    return f"{np.mean(hits):.2f} / {np.mean(pixels):.3f} / {image:.2f}"
