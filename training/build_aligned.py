"""Builds an aligned-knn bank: read, split by patient, learn from the bank's normals, calibrate, write.

Owns that order. What is learned and how is for `aligned_fit` to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.aligned import nearest, place_field
from dicom_node.score.aligned_bank import write_aligned_bank
from dicom_node.score.aligned_maps import chest_maps, map_vectors
from dicom_node.score.aligned_places import Places
from dicom_node.score.backbone import TorchBackbone, load_backbone
from dicom_node.score.calibration import Calibration
from dicom_node.score.heat_scale import scale_of
from dicom_node.score.manifest import NORMALISATIONS, Manifest, Population, Preprocessing
from dicom_node.score.measured import rounded
from training.aligned_fit import Fitted, fit
from training.embed import finish, work_folder
from training.model_card import write_card
from training.salad_images import Pictures
from training.sides import read_sides
from training.stated import backbone_facts, check_place, facts_of, recipe_of, warnings_of

Vectors = npt.NDArray[np.float32]

MEAN, STD = NORMALISATIONS["127"]
BACKBONES = ("lite0", "lite0-random")

FEW = 500
"""Below this many normals the summary warns. Phantoms: 60 normals teach 10 directions, in which none of six large
opacities lay above all of fifteen normals; 160 teach 20, in which four did."""


@dataclass(frozen=True, slots=True)
class AlignedOrder:
    """What is to be built.

    Attributes
    ----------
    images
        Folder or CSV of normals; of a CSV with splits, "test" stands neither in the bank nor in the calibration.
    out, name
        The bank becomes ``out/name``.
    backbone
        Out of `BACKBONES`.
    preprocessing
        How an image becomes the square that is registered; its size is also that of the network's input.
    k
        Which neighbour's distance counts.
    calibration
        Share (below 1) or number (from 1) of images held out. There is no leave-one-out: template and subspace
        have seen every image of the bank.
    calibration_images
        Folder or CSV of other normals that calibrate instead; all of `images` then stand in the bank.
    seed
        Of the split and of the draws of the fit.
    keep_duplicates
        Let an image that is there several times count several times, for comparison with published figures.
    origin
        More to record in the manifest's recipe.
    """

    images: Path
    out: Path
    name: str = "aligned"
    backbone: str = "lite0"
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(mean=MEAN, std=STD))
    k: int = 5
    calibration: float = 0.2
    calibration_images: Path | None = None
    false_positive_rate: float = 0.05
    seed: int = 0
    keep_duplicates: bool = False
    population: Population = field(default_factory=Population)
    rules: Eligibility = field(default_factory=Eligibility)
    origin: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AlignedSummary:
    """What was built, and what was left out and why. `skipped` pairs file names with reasons.

    `directions` is the dimension q of the subspace, `not_registered` counts bank and calibration images.
    """

    bank: str
    path: str
    bank_hash: str
    normal_images: int
    calibration_images: int
    calibration: str
    patients: int
    k: int
    directions: int
    not_registered: int
    megabytes: float
    threshold: float
    calibration_mean: float
    calibration_std: float
    duplicates: int
    shared_with_bank: int
    kept_for_test: int
    skipped: list[tuple[str, str]]
    seconds: float
    warnings: list[str] = field(default_factory=list)


def build_aligned(
    order: AlignedOrder,
    *,
    created_at: datetime,
    started: Callable[[int], None],
    progress: Callable[[int], None],
) -> AlignedSummary:
    """Learn from normals, calibrate on others, write the bank.

    Parameters
    ----------
    created_at
        For the manifest; timezone-aware.
    started, progress
        Told how many images there are to read and to see through the network, and how many each step has done.

    Raises
    ------
    BankError
        If the order cannot be carried out: unknown backbone, too few normals, the bank exists.
    """
    begun = time.monotonic()
    check_place(order.out, order.name)
    if order.backbone not in BACKBONES:
        raise BankError(f"backbone is {order.backbone!r}; the maps are those of {', '.join(BACKBONES)}")
    backbone = load_backbone(order.backbone)
    with work_folder(order.out, order.name) as folder:
        sides = read_sides(
            order, order.preprocessing, order.seed, folder, lambda files: started(2 * files), progress
        )
        bank = sides.bank
        k, prep, patients = min(order.k, len(bank)), order.preprocessing, [item.patient for item in bank.items]
        fitted = fit(bank.take, patients, backbone.module, prep, order.seed, progress)
        look = _Look(fitted, backbone, prep, progress)
        vectors = look.coordinates(bank)
        calibration, places = look.calibrate(sides.held, vectors, k)
        lost = look.lost + fitted.not_registered
        manifest = write_aligned_bank(
            order.out / order.name,
            atlas=fitted.atlas,
            subspace=fitted.subspace,
            vectors=vectors,
            calibration=calibration,
            images=[item.file_id for item in bank.items],
            facts=_facts(order, backbone, bank, fitted, k, created_at),
            places=places,
        )
        write_card(order.out / order.name, manifest)
        finish(folder)
    size = sum((order.out / order.name / file).stat().st_size for file in manifest.files)
    return AlignedSummary(
        bank=order.name,
        path=str(order.out / order.name),
        bank_hash=manifest.bank_hash,
        normal_images=manifest.normal_images,
        calibration_images=manifest.calibration_images,
        calibration=manifest.calibration,
        patients=sides.patients,
        k=k,
        directions=manifest.dim,
        not_registered=lost,
        megabytes=round(size / 1e6, 1),
        threshold=manifest.threshold,
        calibration_mean=calibration.mean,
        calibration_std=calibration.std,
        duplicates=sides.duplicates,
        shared_with_bank=sides.shared,
        kept_for_test=sides.kept_for_test,
        skipped=sides.skipped,
        seconds=round(time.monotonic() - begun, 3),
        warnings=_warnings(order, manifest, lost),
    )


class _Look:
    """Looks at images as the scorer will, and counts those that were not registered."""

    def __init__(
        self,
        fitted: Fitted,
        backbone: TorchBackbone,
        preprocessing: Preprocessing,
        progress: Callable[[int], None],
    ) -> None:
        self._fitted, self._backbone, self._preprocessing = fitted, backbone, preprocessing
        self._progress = progress
        self.lost = 0

    def coordinates(self, bank: Pictures) -> Vectors:
        """Return the coordinates (N, q) of the bank's images; those that the fit saw are known already."""
        known, project = self._fitted.coordinates, self._fitted.subspace.project
        return np.stack(
            [known[row] if row in known else project(self._vector(bank, row))[0] for row in range(len(bank))]
        )

    def calibrate(self, held: Pictures, bank: Vectors, k: int) -> tuple[Calibration, Places]:
        """Return what the scores, and the distances of places, of held-out images are."""
        subspace, grid = self._fitted.subspace, self._fitted.facts.grid
        scores, fields = [], []
        for row in range(len(held)):
            vector = self._vector(held, row)
            scores.append(rounded(nearest(bank, subspace.project(vector), k)[0][0, k - 1]))
            fields.append(place_field(vector, bank, subspace, k, grid))
        shift = self._backbone.map_shift(self._preprocessing.size)
        return Calibration.of(scores), Places(*scale_of(fields), shift)

    def _vector(self, pictures: Pictures, row: int) -> Vectors:
        fitted, square = self._fitted, pictures.take([row])[0]
        template, module = fitted.atlas.template, self._backbone.module
        maps, placement = chest_maps(square, template, module, self._preprocessing, fitted.facts)
        self.lost += bool(placement.note)
        self._progress(1)
        return map_vectors(maps, fitted.atlas)


def _facts(
    order: AlignedOrder,
    backbone: TorchBackbone,
    bank: Pictures,
    fitted: Fitted,
    k: int,
    created_at: datetime,
) -> dict[str, Any]:
    return {
        **facts_of(order, bank.items, created_at, ("torch", "pydicom", "numpy", "pillow")),
        "backbone": backbone_facts(backbone),
        "preprocessing": order.preprocessing,
        "k": k,
        "aligned": fitted.facts,
        "calibration": "separate" if order.calibration_images else "held-out",
        "recipe": {
            **recipe_of(order, order.seed),
            "directions_tried": ", ".join(map(str, fitted.likelihoods)),
        },
    }


def _warnings(order: AlignedOrder, manifest: Manifest, lost: int) -> list[str]:
    warnings = []
    if manifest.normal_images < FEW:
        warnings.append(
            f"{manifest.normal_images} normals in the bank: they teach {manifest.dim} directions, and what lies in "
            f"none of them does not count; {FEW} or more are sensible"
        )
    if lost:
        warnings.append(f"{lost} images could not be registered to the template and were used as they lie")
    if manifest.k < order.k:
        warnings.append(f"k is {manifest.k}, as many as there are images, instead of {order.k}")
    return warnings + warnings_of(manifest)
