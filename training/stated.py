"""What the builders of every kind of bank check, record and warn of in the same words. Pure but for one look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from dicom_node import __version__
from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank import check_name
from dicom_node.score.manifest import BackboneFacts, Manifest, Population
from training.dataset import Item

MINIMUM_NORMALS = 20
"""Below this many usable normals percentiles and a threshold mean nothing, and no bank is written."""

FEW_NORMALS = 200
"""Below this many the summary warns."""

Recipe = dict[str, str | int | float]


class Asked(Protocol):
    """What the orders of all kinds have in common."""

    @property
    def calibration(self) -> float | str:
        """Share or number of images held out, or how else."""

    @property
    def false_positive_rate(self) -> float:
        """Share of normals that may lie above the threshold."""

    @property
    def keep_duplicates(self) -> bool:
        """Whether an image that is there several times counts several times."""

    @property
    def population(self) -> Population:
        """Whom the bank may score."""

    @property
    def rules(self) -> Eligibility:
        """Which images are taken."""

    @property
    def origin(self) -> Mapping[str, str | int | float]:
        """More to record in the manifest's recipe."""


def check_place(out: Path, name: str) -> None:
    """Raise BankError if the name is unfit, or a bank of that name exists."""
    check_name(name)
    if (out / name).exists():
        raise BankError(f"bank {name} exists in {out}; a bank is never changed, choose another name")


def require(usable: int, files: int, skipped: Sequence[tuple[str, str]]) -> None:
    """Raise BankError if there are fewer usable normals than a bank needs."""
    if usable < MINIMUM_NORMALS:
        first = f"; the first left out: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise BankError(
            f"{usable} usable normals out of {files} files; at least {MINIMUM_NORMALS} must stand in the "
            f"bank, and {FEW_NORMALS} or more are sensible{first}"
        )


def facts_of(
    order: Asked, items: Sequence[Item], created_at: datetime, packages: Sequence[str]
) -> dict[str, Any]:
    """Return the manifest's fields that every kind fills alike.

    Parameters
    ----------
    items
        What stands in the bank.
    packages
        Those that made the bank, beside this one.
    """
    return {
        "created_at": created_at.isoformat(timespec="seconds"),
        "false_positive_rate": order.false_positive_rate,
        "population": order.population,
        "seen": {
            "modality": dict(Counter(item.modality or "not stated" for item in items)),
            "view": dict(Counter(item.view or "not stated" for item in items)),
        },
        "versions": {"dicom_node": __version__, **{package: version(package) for package in packages}},
    }


def backbone_facts(backbone: Backbone) -> BackboneFacts:
    """Return what the manifest says of a backbone."""
    return BackboneFacts(
        name=backbone.name,
        dim=backbone.dim,
        weights_sha256=backbone.weights_sha256,
        licence=backbone.licence,
        training_data=backbone.training_data,
    )


def recipe_of(order: Asked, seed: int) -> Recipe:
    """Return the part of the manifest's recipe that every kind has; see `training.recipe` for the way back."""
    recipe: Recipe = {
        "seed": seed,
        "calibration": order.calibration,
        "duplicates": "kept" if order.keep_duplicates else "left out",
    }
    if order.rules != Eligibility():
        recipe["rules"] = order.rules.model_dump_json()
    return {**recipe, **order.origin}


def few_normals(manifest: Manifest) -> list[str]:
    """Return a warning where a bank has few normals."""
    if manifest.normal_images >= FEW_NORMALS:
        return []
    return [
        f"{manifest.normal_images} normals in the bank: percentiles and threshold are rough below {FEW_NORMALS}"
    ]


def warnings_of(manifest: Manifest) -> list[str]:
    """Return what to warn of whatever the kind: too few that calibrate, no population."""
    warnings, rate = [], manifest.false_positive_rate
    if manifest.calibration_images * rate < 1:
        warnings.append(
            f"{manifest.calibration_images} calibration images cannot tell a false-positive rate of "
            f"{rate:g}: the threshold is simply their highest score"
        )
    people = manifest.population
    limited = people.modalities or people.views or people.institutions
    if not limited and people.minimum_age is None and people.maximum_age is None:
        warnings.append("no population was stated: the bank admits every eligible image (see --population-...)")
    return warnings
