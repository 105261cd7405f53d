"""Builds a SALAD bank: read, split by patient, train, calibrate, write; owns that order."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
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
from dicom_node.score.bank import check_name
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest, Population, Preprocessing, SaladFacts, Weighting
from dicom_node.score.measured import rounded
from dicom_node.score.salad import TAU, K, anomaly_scores, encode
from dicom_node.score.salad_bank import write_salad_bank
from training.build import FEW_NORMALS, MINIMUM_NORMALS
from training.dataset import Reader
from training.embed import finish, patient_key, work_folder
from training.manifest import read_sources
from training.model_card import write_card
from training.salad_curves import write_curves
from training.salad_images import Pictures, divide_pictures, read_pictures
from training.train_salad import MEAN, STD, Epoch, Recipe, Trained, train

_BATCH = 64


@dataclass(frozen=True, slots=True)
class SaladOrder:
    """What is to be built.

    Attributes
    ----------
    images
        Folder or CSV of normals; of a CSV with splits, "test" is neither trained on nor calibrates.
    out, name
        The bank becomes ``out/name``.
    preprocessing
        Window and rescale; size and normalisation are the recipe's.
    k
        Memory rows that a score looks at; at most one for each image of the bank.
    calibration
        Share (below 1) or number (from 1) of images held out. SALAD has no leave-one-out: its encoder has seen
        every image of the bank.
    calibration_images
        Folder or CSV of other normals that calibrate instead; all of `images` are then trained on.
    keep_duplicates
        Let an image that is there several times count several times, for comparison with published figures.
    checkpoint_seconds
        A killed training loses at most about this much, or one epoch.
    """

    images: Path
    out: Path
    name: str = "salad"
    recipe: Recipe = field(default_factory=Recipe)
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    k: int = K
    weighting: Weighting = "mean"
    calibration: float = 0.2
    calibration_images: Path | None = None
    false_positive_rate: float = 0.05
    keep_duplicates: bool = False
    population: Population = field(default_factory=Population)
    rules: Eligibility = field(default_factory=Eligibility)
    device: str = "cpu"
    checkpoint_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class SaladSummary:
    """What was built, and what was left out and why. `skipped` pairs file names with reasons."""

    bank: str
    path: str
    bank_hash: str
    normal_images: int
    calibration_images: int
    calibration: str
    patients: int
    k: int
    epochs: int
    device: str
    first_loss: float
    last_loss: float
    curves: list[str]
    threshold: float
    calibration_mean: float
    calibration_std: float
    duplicates: int
    shared_with_bank: int
    kept_for_test: int
    skipped: list[tuple[str, str]]
    reused: int
    seconds: float
    warnings: list[str] = field(default_factory=list)


def build_salad(
    order: SaladOrder,
    *,
    created_at: datetime,
    started: Callable[[int], None],
    progress: Callable[[int], None],
    trained: Callable[[Epoch], None],
) -> SaladSummary:
    """Train on normals, calibrate on others, write the bank.

    Parameters
    ----------
    created_at
        For the manifest; timezone-aware.
    started, progress
        Told how many files there are, and how many each step has read.
    trained
        Told each epoch that ended.

    Raises
    ------
    BankError
        If the order cannot be carried out: unfit size, too few normals, the bank exists.
    """
    begun = time.monotonic()
    check_name(order.name)
    if (order.out / order.name).exists():
        raise BankError(
            f"bank {order.name} exists in {order.out}; a bank is never changed, choose another name"
        )
    size = order.recipe.size
    prep = Preprocessing(
        window=order.preprocessing.window,
        rescale=order.preprocessing.rescale,
        mean=MEAN,
        std=STD,
        size=size,
        resize_short=size,
    )
    with work_folder(order.out, order.name) as folder:
        key = patient_key(folder)
        reader = Reader(prep, ("squash",), order.rules, key, order.population)
        entries, others, kept_for_test = read_sources(order.images, order.calibration_images, key)
        started(len(entries) + len(others))
        read = read_pictures(entries, reader, folder, progress)
        separate = read_pictures(others, reader, folder, progress) if others else None
        usable = read if order.keep_duplicates else read.distinct()
        bank, held, shared = divide_pictures(usable, separate, order.calibration, order.recipe.seed)
        if len(bank) < MINIMUM_NORMALS:
            raise BankError(
                f"{len(bank)} usable normals out of {len(entries)} files; at least {MINIMUM_NORMALS} must "
                f"stand in the bank{''.join(f'; left out: {name} ({why})' for name, why in read.skipped[:1])}"
            )
        result = train(
            bank,
            order.recipe,
            checkpoint=folder / "training.safetensors",
            progress=trained,
            device=order.device,
            every_seconds=order.checkpoint_seconds,
        )
        k = min(order.k, len(bank))
        calibration = Calibration.of(_scores(held, result, prep, k, order.weighting))
        manifest = write_salad_bank(
            order.out / order.name,
            encoder=result.encoder,
            memory=result.memory,
            calibration=calibration,
            images=[item.file_id for item in bank.items],
            facts=_facts(
                order, prep, bank, k, created_at, "separate" if order.calibration_images else "held-out"
            ),
        )
        write_card(order.out / order.name, manifest)
        curves = write_curves(order.out, order.name, order.recipe, result.curve)
        finish(folder)
    return SaladSummary(
        bank=order.name,
        path=str(order.out / order.name),
        bank_hash=manifest.bank_hash,
        normal_images=manifest.normal_images,
        calibration_images=manifest.calibration_images,
        calibration=manifest.calibration,
        patients=len({item.patient for item in bank.items}),
        k=k,
        epochs=len(result.curve),
        device=order.device,
        first_loss=result.curve[0].total,
        last_loss=result.curve[-1].total,
        curves=[str(path) for path in curves if path is not None],
        threshold=manifest.threshold,
        calibration_mean=calibration.mean,
        calibration_std=calibration.std,
        duplicates=len(read) - len(usable),
        shared_with_bank=shared,
        kept_for_test=kept_for_test,
        skipped=read.skipped + (separate.skipped if separate else []),
        reused=read.reused + (separate.reused if separate else 0),
        seconds=round(time.monotonic() - begun, 3),
        warnings=_warnings(order, manifest, pictured=curves[1] is not None),
    )


def _scores(
    held: Pictures, result: Trained, prep: Preprocessing, k: int, weighting: Weighting
) -> npt.NDArray[np.float64]:
    parts = []
    for at in range(0, len(held), _BATCH):
        z = encode(result.encoder, held.take(range(at, min(at + _BATCH, len(held)))), prep)
        parts.append(anomaly_scores(z, result.memory, k, weighting)[0])
    return np.array([rounded(value) for value in np.concatenate(parts)])


def _facts(
    order: SaladOrder, prep: Preprocessing, bank: Pictures, k: int, created_at: datetime, how: str
) -> dict[str, Any]:
    recipe = order.recipe
    return {
        "created_at": created_at.isoformat(timespec="seconds"),
        "preprocessing": prep,
        "k": k,
        "salad": SaladFacts(
            channels=recipe.channels,
            weighting=order.weighting,
            tau=TAU,
            rounds=recipe.rounds,
            epochs=recipe.epochs,
            seed=recipe.seed,
            reconstruction=recipe.reconstruction,
        ),
        "calibration": how,
        "false_positive_rate": order.false_positive_rate,
        "population": order.population,
        "seen": {
            "modality": dict(Counter(item.modality or "not stated" for item in bank.items)),
            "view": dict(Counter(item.view or "not stated" for item in bank.items)),
        },
        "recipe": {
            "seed": recipe.seed,
            "calibration": order.calibration,
            "duplicates": "kept" if order.keep_duplicates else "left out",
            "batch": recipe.batch,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "device": order.device,
        },
        "versions": {
            "dicom_node": __version__,
            **{package: version(package) for package in ("torch", "pydicom", "numpy", "pillow")},
        },
    }


def _warnings(order: SaladOrder, manifest: Manifest, *, pictured: bool) -> list[str]:
    warnings = []
    if manifest.normal_images < FEW_NORMALS:
        warnings.append(
            f"{manifest.normal_images} normals in the bank: percentiles and threshold are rough "
            f"below {FEW_NORMALS}"
        )
    if manifest.k < order.k:
        warnings.append(f"the bank has {manifest.k} memory rows: all of them score, instead of {order.k}")
    if (order.recipe.rounds, order.recipe.epochs) != (Recipe().rounds, Recipe().epochs):
        warnings.append(
            f"trained for rounds 0 to {order.recipe.rounds} of {order.recipe.epochs} epochs; the paper's are "
            f"0 to {Recipe().rounds} of {Recipe().epochs}"
        )
    if manifest.calibration_images * order.false_positive_rate < 1:
        warnings.append(
            f"{manifest.calibration_images} calibration images cannot tell a false-positive rate of "
            f"{order.false_positive_rate:g}: the threshold is simply their highest score"
        )
    if not pictured:
        warnings.append("no picture of the loss curves: matplotlib is not installed (extra training)")
    return warnings
