"""How a bank was built, read back from it: the order that builds another one alike from other normals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.bank import FILES, WEIGHTS, Bank
from dicom_node.score.batch_norm import FILE as STATISTICS
from dicom_node.score.patch_bank import FILE as PATCHES
from training.calibrate import LEAVE_ONE_OUT
from training.index import index_of
from training.order import Order

REBUILT_FROM, REBUILD_INPUT = "rebuilt_from", "rebuild_input"

_KNOWN = {
    *("seed", "calibration", "duplicates", "drop_outliers", "dropped_images", "rules", "patches"),
    *("index", "flat_up_to", REBUILT_FROM, REBUILD_INPUT),
}


def order_like(bank: Bank, folder: Path, *, images: Path, name: str, calibration_images: Path | None) -> Order:
    """Return the order that repeats a bank's recipe.

    The head is the bank's own, as it is: it is not trained anew.

    Parameters
    ----------
    folder
        The bank's; the new one is built beside it.
    calibration_images
        Needed where the bank was calibrated on a set of its own, whose place no bank records.

    Raises
    ------
    BankError
        If the bank was built in a way that an order cannot repeat.
    """
    manifest, recipe = bank.manifest, bank.manifest.recipe
    asked = {key for key in recipe if not key.startswith("head.")}  # the head itself says how it was trained
    unknown = sorted({*(asked - _KNOWN), *(set(manifest.files) - {*FILES, PATCHES, STATISTICS})})
    if unknown:
        raise BankError(f"bank {manifest.name} was built with {', '.join(unknown)}, which no rebuild repeats")
    calibration = recipe.get("calibration", LEAVE_ONE_OUT if manifest.calibration == LEAVE_ONE_OUT else 0.2)
    if manifest.calibration == "separate" and calibration_images is None:
        raise BankError(
            f"bank {manifest.name} was calibrated on a separate set; name one with --calibration-images"
        )
    own_weights = folder.parent / WEIGHTS / manifest.backbone.weights_sha256
    rules: Any = recipe.get("rules")
    return Order(
        images=images,
        out=folder.parent,
        name=name,
        backbone=manifest.backbone.name,
        weights=own_weights if ":" in manifest.backbone.name else None,
        weights_licence=manifest.backbone.licence,
        weights_training_data=manifest.backbone.training_data,
        views=manifest.views,
        k=manifest.k,
        preprocessing=manifest.preprocessing,
        calibration=calibration,
        calibration_images=calibration_images,
        false_positive_rate=manifest.false_positive_rate,
        seed=int(recipe.get("seed", 0)),
        keep_duplicates=recipe.get("duplicates") == "kept",
        drop_outliers=float(recipe.get("drop_outliers", 0.0)),
        patches=int(recipe.get("patches", 0)),
        index=index_of(recipe),
        population=manifest.population,
        rules=Eligibility() if rules is None else Eligibility.model_validate_json(rules),
        head=bank.head,
        statistics=bank.statistics,
    )
