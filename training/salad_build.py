"""Builds a SALAD bank: read, split by patient, train, calibrate, write; owns that order."""

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
from dicom_node.score.calibration import Calibration
from dicom_node.score.manifest import Manifest, Population, Preprocessing
from dicom_node.score.measured import rounded
from dicom_node.score.salad import TAU, K, anomaly_scores, encode
from dicom_node.score.salad_bank import write_salad_bank
from dicom_node.score.salad_facts import SaladFacts, Weighting
from training.embed import finish, work_folder
from training.model_card import write_card
from training.salad_curves import write_curves
from training.salad_images import Pictures
from training.sides import read_sides
from training.stated import check_place, facts_of, few_normals, recipe_of, warnings_of
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
    origin
        More to record in the manifest's recipe.
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
    origin: Mapping[str, str | int | float] = field(default_factory=dict)


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
    check_place(order.out, order.name)
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
        sides = read_sides(order, prep, order.recipe.seed, folder, started, progress)
        bank = sides.bank
        result = train(
            bank,
            order.recipe,
            checkpoint=folder / "training.safetensors",
            progress=trained,
            device=order.device,
            every_seconds=order.checkpoint_seconds,
        )
        k = min(order.k, len(bank))
        calibration = Calibration.of(_scores(sides.held, result, prep, k, order.weighting))
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
        patients=sides.patients,
        k=k,
        epochs=len(result.curve),
        device=order.device,
        first_loss=result.curve[0].total,
        last_loss=result.curve[-1].total,
        curves=[str(path) for path in curves if path is not None],
        threshold=manifest.threshold,
        calibration_mean=calibration.mean,
        calibration_std=calibration.std,
        duplicates=sides.duplicates,
        shared_with_bank=sides.shared,
        kept_for_test=sides.kept_for_test,
        skipped=sides.skipped,
        reused=sides.reused,
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
        **facts_of(order, bank.items, created_at, ("torch", "pydicom", "numpy", "pillow")),
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
        "recipe": {
            **recipe_of(order, recipe.seed),
            **({"k": order.k} if k < order.k else {}),
            "batch": recipe.batch,
            "learning_rate": recipe.learning_rate,
            "weight_decay": recipe.weight_decay,
            "device": order.device,
        },
    }


def _warnings(order: SaladOrder, manifest: Manifest, *, pictured: bool) -> list[str]:
    warnings = few_normals(manifest) + warnings_of(manifest)
    if manifest.k < order.k:
        warnings.append(f"the bank has {manifest.k} memory rows: all of them score, instead of {order.k}")
    if (order.recipe.rounds, order.recipe.epochs) != (Recipe().rounds, Recipe().epochs):
        warnings.append(
            f"trained for rounds 0 to {order.recipe.rounds} of {order.recipe.epochs} epochs; the paper's are "
            f"0 to {Recipe().rounds} of {Recipe().epochs}"
        )
    if not pictured:
        warnings.append("no picture of the loss curves: matplotlib is not installed (extra training)")
    return warnings
