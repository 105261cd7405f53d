"""How a bank was built, read back from it: the order that builds another one alike from other normals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score import aligned_bank, salad_bank
from dicom_node.score.aligned_bank import AlignedBank
from dicom_node.score.aligned_places import FILE as PLACES
from dicom_node.score.bank import FILES, STATISTICS, WEIGHTS, Bank
from dicom_node.score.manifest import Manifest
from dicom_node.score.normal_pictures import FILE as NORMALS
from dicom_node.score.patch_bank import FILE as PATCHES
from dicom_node.score.salad_bank import SaladBank
from training.build_aligned import AlignedOrder
from training.calibrate import LEAVE_ONE_OUT
from training.index import index_of
from training.order import Order
from training.salad_build import SaladOrder
from training.train_salad import Recipe, pick_device

REBUILT_FROM, REBUILD_INPUT, REBUILD_SOURCE = "rebuilt_from", "rebuild_input", "rebuild_source"

AnyOrder = Order | SaladOrder | AlignedOrder

_EVERY = {"seed", "calibration", "duplicates", "rules", REBUILT_FROM, REBUILD_INPUT, REBUILD_SOURCE}
_KNOWN = {
    "deep-knn": {"drop_outliers", "dropped_images", "patches", "thumbnails", "index", "flat_up_to"},
    "salad": {"k", "batch", "learning_rate", "weight_decay", "device"},
    "aligned-knn": {"directions_tried"},
}
_FILES = {
    "deep-knn": {*FILES, PATCHES, STATISTICS, NORMALS},
    "salad": set(salad_bank.FILES),
    "aligned-knn": {*aligned_bank.FILES, PLACES},
}


def order_like(
    bank: Bank | SaladBank | AlignedBank,
    folder: Path,
    *,
    images: Path,
    name: str,
    calibration_images: Path | None,
    origin: Mapping[str, str | int | float] | None = None,
) -> AnyOrder:
    """Return the order that repeats a bank's recipe.

    What is learned from normals is learned anew (SALAD's encoder, the aligned maps' template and subspace); the head
    of a deep-knn bank is its own, as it is.

    Parameters
    ----------
    folder
        The bank's; the new one is built beside it.
    calibration_images
        Needed where the bank was calibrated on a set of its own, whose place no bank records.
    origin
        More for the manifest of the new one.

    Raises
    ------
    BankError
        If the bank was built in a way that an order cannot repeat.
    """
    manifest = bank.manifest
    _check(manifest, calibration_images)
    shared = {
        "images": images,
        "out": folder.parent,
        "name": name,
        "calibration_images": calibration_images,
        "false_positive_rate": manifest.false_positive_rate,
        "keep_duplicates": manifest.recipe.get("duplicates") == "kept",
        "population": manifest.population,
        "rules": _rules(manifest),
        "origin": origin or {},
    }
    if isinstance(bank, SaladBank):
        return _salad(bank, shared)
    return _aligned(bank, shared) if isinstance(bank, AlignedBank) else _deep_knn(bank, folder, shared)


def _check(manifest: Manifest, calibration_images: Path | None) -> None:
    asked = {key for key in manifest.recipe if not key.startswith("head.")}  # the head says how it was trained
    unknown = sorted(
        {*(asked - _EVERY - _KNOWN[manifest.kind]), *(set(manifest.files) - _FILES[manifest.kind])}
    )
    if unknown:
        raise BankError(f"bank {manifest.name} was built with {', '.join(unknown)}, which no rebuild repeats")
    if manifest.calibration == "separate" and calibration_images is None:
        raise BankError(
            f"bank {manifest.name} was calibrated on a separate set; name one with --calibration-images"
        )


def _rules(manifest: Manifest) -> Eligibility:
    rules: Any = manifest.recipe.get("rules")
    return Eligibility() if rules is None else Eligibility.model_validate_json(rules)


def _share(manifest: Manifest) -> float:
    return float(manifest.recipe.get("calibration", 0.2))


def _deep_knn(bank: Bank, folder: Path, shared: dict[str, Any]) -> Order:
    manifest, recipe = bank.manifest, bank.manifest.recipe
    whole = LEAVE_ONE_OUT if manifest.calibration == LEAVE_ONE_OUT else 0.2
    own_weights = folder.parent / WEIGHTS / manifest.backbone.weights_sha256
    return Order(
        **shared,
        backbone=manifest.backbone.name,
        weights=own_weights if ":" in manifest.backbone.name else None,
        weights_licence=manifest.backbone.licence,
        weights_training_data=manifest.backbone.training_data,
        views=manifest.views,
        k=manifest.k,
        preprocessing=manifest.preprocessing,
        calibration=recipe.get("calibration", whole),
        seed=int(recipe.get("seed", 0)),
        drop_outliers=float(recipe.get("drop_outliers", 0.0)),
        patches=int(recipe.get("patches", 0)),
        thumbnails=bool(recipe.get("thumbnails", 0)),
        index=index_of(recipe),
        head=bank.head,
        statistics=bank.statistics,
    )


def _salad(bank: SaladBank, shared: dict[str, Any]) -> SaladOrder:
    manifest, facts, recipe, usual = bank.manifest, bank.manifest.salad, bank.manifest.recipe, Recipe()
    if facts is None:
        raise BankError(f"bank {manifest.name} says nothing of its encoder; a bank of kind salad must")
    return SaladOrder(
        **shared,
        recipe=Recipe(
            size=manifest.preprocessing.size,
            channels=facts.channels,
            dim=manifest.dim,
            rounds=facts.rounds,
            epochs=facts.epochs,
            batch=int(recipe.get("batch", usual.batch)),
            learning_rate=float(recipe.get("learning_rate", usual.learning_rate)),
            weight_decay=float(recipe.get("weight_decay", usual.weight_decay)),
            reconstruction=facts.reconstruction,
            seed=facts.seed,
        ),
        preprocessing=manifest.preprocessing,
        k=int(recipe.get("k", manifest.k)),
        weighting=facts.weighting,
        calibration=_share(manifest),
        device=pick_device("auto"),  # the hardware at hand, not the one of then
    )


def _aligned(bank: AlignedBank, shared: dict[str, Any]) -> AlignedOrder:
    manifest = bank.manifest
    return AlignedOrder(
        **shared,
        backbone=manifest.backbone.name,
        preprocessing=manifest.preprocessing,
        k=manifest.k,
        calibration=_share(manifest),
        seed=int(manifest.recipe.get("seed", 0)),
    )
