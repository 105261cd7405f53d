"""Builds an aligned-knn bank: read, split by patient, learn from the bank's normals, calibrate, write.

Owns that order. What is learned and how is for `aligned_fit` to know.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node import __version__
from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.aligned import nearest
from dicom_node.score.aligned_bank import write_aligned_bank
from dicom_node.score.aligned_maps import chest_maps, map_vectors
from dicom_node.score.backbone import TorchBackbone, load_backbone
from dicom_node.score.bank import check_name
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import NORMALISATIONS, BackboneFacts, Manifest, Population, Preprocessing
from dicom_node.score.measured import rounded
from training.aligned_fit import Fitted, fit
from training.build import MINIMUM_NORMALS
from training.dataset import Reader
from training.embed import finish, patient_key, work_folder
from training.manifest import read_sources
from training.model_card import write_card
from training.salad_images import Pictures, divide_pictures, read_pictures

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
    check_name(order.name)
    if (order.out / order.name).exists():
        raise BankError(
            f"bank {order.name} exists in {order.out}; a bank is never changed, choose another name"
        )
    if order.backbone not in BACKBONES:
        raise BankError(f"backbone is {order.backbone!r}; the maps are those of {', '.join(BACKBONES)}")
    backbone = load_backbone(order.backbone)
    with work_folder(order.out, order.name) as folder:
        key = patient_key(folder)
        reader = Reader(order.preprocessing, ("squash",), order.rules, key, order.population)
        entries, others, kept_for_test = read_sources(order.images, order.calibration_images, key)
        started(2 * (len(entries) + len(others)))
        read = read_pictures(entries, reader, folder, progress)
        separate = read_pictures(others, reader, folder, progress) if others else None
        usable = read if order.keep_duplicates else read.distinct()
        bank, held, shared = divide_pictures(usable, separate, order.calibration, order.seed)
        if len(bank) < MINIMUM_NORMALS:
            raise BankError(
                f"{len(bank)} usable normals out of {len(entries)} files; at least {MINIMUM_NORMALS} must "
                f"stand in the bank{''.join(f'; left out: {name} ({why})' for name, why in read.skipped[:1])}"
            )
        k, prep, patients = min(order.k, len(bank)), order.preprocessing, [item.patient for item in bank.items]
        fitted = fit(bank.take, patients, backbone.module, prep, order.seed, progress)
        vectors, lost = _coordinates(bank, fitted, backbone, prep, progress, fitted.coordinates)
        queries, more = _coordinates(held, fitted, backbone, prep, progress, {})
        lost += more + fitted.not_registered
        calibration = Calibration.of([rounded(one[k - 1]) for one in nearest(vectors, queries, k)[0]])
        manifest = write_aligned_bank(
            order.out / order.name,
            atlas=fitted.atlas,
            subspace=fitted.subspace,
            vectors=vectors,
            calibration=calibration,
            images=[item.file_id for item in bank.items],
            facts=_facts(order, backbone, bank, fitted, k, created_at),
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
        patients=len({item.patient for item in bank.items}),
        k=k,
        directions=manifest.dim,
        not_registered=lost,
        megabytes=round(size / 1e6, 1),
        threshold=manifest.threshold,
        calibration_mean=calibration.mean,
        calibration_std=calibration.std,
        duplicates=len(read) - len(usable),
        shared_with_bank=shared,
        kept_for_test=kept_for_test,
        skipped=read.skipped + (separate.skipped if separate else []),
        seconds=round(time.monotonic() - begun, 3),
        warnings=_warnings(order, manifest, lost),
    )


def _coordinates(
    pictures: Pictures,
    fitted: Fitted,
    backbone: TorchBackbone,
    preprocessing: Preprocessing,
    progress: Callable[[int], None],
    known: Mapping[int, Vectors],
) -> tuple[Vectors, int]:
    """Return coordinates (n, q) of images, those `known` by row as they are, and how many were not registered."""
    rows, lost = [], 0
    for row in range(len(pictures)):
        if row not in known:
            square = pictures.take([row])[0]
            template, module = fitted.atlas.template, backbone.module
            maps, placement = chest_maps(square, template, module, preprocessing, fitted.facts)
            lost += bool(placement.note)
            progress(1)
        rows.append(known[row] if row in known else fitted.subspace.project(map_vectors(maps, fitted.atlas))[0])
    return np.stack(rows), lost


def _facts(
    order: AlignedOrder,
    backbone: TorchBackbone,
    bank: Pictures,
    fitted: Fitted,
    k: int,
    created_at: datetime,
) -> dict[str, Any]:
    return {
        "created_at": created_at.isoformat(timespec="seconds"),
        "backbone": BackboneFacts(
            name=backbone.name,
            dim=backbone.dim,
            weights_sha256=backbone.weights_sha256,
            licence=backbone.licence,
            training_data=backbone.training_data,
        ),
        "preprocessing": order.preprocessing,
        "k": k,
        "aligned": fitted.facts,
        "calibration": "separate" if order.calibration_images else "held-out",
        "false_positive_rate": order.false_positive_rate,
        "population": order.population,
        "seen": {
            "modality": dict(Counter(item.modality or "not stated" for item in bank.items)),
            "view": dict(Counter(item.view or "not stated" for item in bank.items)),
        },
        "recipe": {
            "seed": order.seed,
            "calibration": order.calibration,
            "duplicates": "kept" if order.keep_duplicates else "left out",
            "directions_tried": ", ".join(map(str, fitted.likelihoods)),
        },
        "versions": {
            "dicom_node": __version__,
            **{package: version(package) for package in ("torch", "pydicom", "numpy", "pillow")},
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
    if manifest.calibration_images * order.false_positive_rate < 1:
        warnings.append(
            f"{manifest.calibration_images} calibration images cannot tell a false-positive rate of "
            f"{order.false_positive_rate:g}: the threshold is simply their highest score"
        )
    return warnings
