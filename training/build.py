"""Builds a bank: embed, leave out duplicates, split by patient, calibrate, write; owns that order."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node import __version__
from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone, Weights, load_backbone
from dicom_node.score.bank import WEIGHTS, check_name, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.manifest import BackboneFacts, Manifest
from dicom_node.score.views import check_views
from training import calibrate, contamination
from training.dataset import Item, Reader
from training.divide import Parts, distinct, divide
from training.embed import Embedded, embed_entries, finish, patient_key, work_folder
from training.head_recipe import fitted, head_facts, trained_on_warnings
from training.index import index_recipe
from training.manifest import read_sources
from training.model_card import write_card
from training.order import Order, Summary
from training.patches import patches_for

__all__ = ["MINIMUM_NORMALS", "Order", "Summary", "build"]

MINIMUM_NORMALS = 20
"""Below this many usable normals percentiles and a threshold mean nothing, and no bank is written."""

FEW_NORMALS = 200
"""Below this many the summary warns."""

Vectors = npt.NDArray[np.float32]


def build(
    order: Order, *, created_at: datetime, started: Callable[[int], None], progress: Callable[[int], None]
) -> Summary:
    """Build and write a bank.

    Parameters
    ----------
    created_at
        For the manifest; timezone-aware.
    started
        Told how many files there are.
    progress
        Told how many files each step has done.

    Raises
    ------
    BankError
        If the order cannot be carried out: unknown backbone or view, too few normals, the bank exists.
    """
    begun = time.monotonic()
    check_name(order.name)
    check_views(order.views)
    if (order.out / order.name).exists():
        raise BankError(
            f"bank {order.name} exists in {order.out}; a bank is never changed, choose another name"
        )
    backbone = fitted(order.head, order.statistics, _published(order), order.preprocessing)
    order.head.output_dim(backbone.dim)
    with work_folder(order.out, order.name) as folder:
        key = patient_key(folder)
        reader = Reader(order.preprocessing, order.views, order.rules, key, order.population)
        entries, others, kept_for_test = read_sources(order.images, order.calibration_images, key)
        started(len(entries) + len(others))
        normals = embed_entries(entries, reader, backbone, folder, progress, order.engine)
        separate = embed_entries(others, reader, backbone, folder, progress, order.engine) if others else None
        usable, duplicates = (normals, 0) if order.keep_duplicates else distinct(normals, folder)
        _require(len(usable.items), len(entries), normals.skipped)
        parts = divide(order, usable, separate, folder)
        _require(len(parts.items), len(entries), normals.skipped)
        calibration = Calibration.of(parts.scores)
        _keep_weights(order, backbone)
        manifest = write_bank(
            order.out / order.name,
            vectors=parts.index.file,
            head=order.head,
            calibration=calibration,
            images=[item.file_id for item in parts.items],
            facts=_facts(order, backbone, parts, created_at),
            statistics=order.statistics,
            patches=patches_for(order, usable, separate, parts.items, backbone),
        )
        write_card(order.out / order.name, manifest)
        review = _keep_review(order.out / order.name, parts.kept.table)
        finish(folder)
    files = len(entries) + len(others)
    seconds = time.monotonic() - begun
    reused = normals.reused + (separate.reused if separate else 0)
    return Summary(
        bank=order.name,
        path=str(order.out / order.name),
        bank_hash=manifest.bank_hash,
        normal_images=manifest.normal_images,
        calibration_images=manifest.calibration_images,
        calibration=manifest.calibration,
        patients=len({item.patient for item in parts.items}),
        vectors=manifest.vectors,
        threshold=manifest.threshold,
        calibration_mean=calibration.mean,
        calibration_std=calibration.std,
        duplicates=duplicates,
        shared_with_bank=parts.shared,
        flagged=int(parts.kept.found.flagged.sum()),
        dropped=len(parts.kept.dropped),
        review=str(review),
        kept_for_test=kept_for_test,
        skipped=normals.skipped + (separate.skipped if separate else []),
        reused=reused,
        seconds=round(seconds, 3),
        images_per_second=round((files - reused) / seconds, 2),
        warnings=_warnings(order, manifest)
        + trained_on_warnings(order.head, _calibrating(usable, separate, parts)),
    )


def _published(order: Order) -> Backbone:
    if order.weights is None:
        return load_backbone(order.backbone)
    weights = Weights(order.weights, order.weights_licence, order.weights_training_data)
    return load_backbone(order.backbone, weights)


def _calibrating(usable: Embedded, separate: Embedded | None, parts: Parts) -> list[Item]:
    """Return the images whose scores calibrate the bank."""
    if parts.how == calibrate.LEAVE_ONE_OUT:
        return parts.items
    bank = {item.pixel_id for item in parts.items}
    return [item for item in (separate or usable).items if item.pixel_id not in bank]


def _keep_review(folder: Path, table: bytes) -> Path:
    """Put the review beside the bank's files. No hash covers it: people may delete it."""
    path = folder / contamination.REVIEW
    staging = path.with_suffix(".writing")
    write_synced(staging, table)
    staging.replace(path)
    sync_folder(folder)
    return path


def _facts(order: Order, backbone: Backbone, parts: Parts, created_at: datetime) -> dict[str, Any]:
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
        "views": order.views,
        "k": order.k,
        "calibration": parts.how,
        "false_positive_rate": order.false_positive_rate,
        "population": order.population,
        "seen": {
            "modality": dict(Counter(item.modality or "not stated" for item in parts.items)),
            "view": dict(Counter(item.view or "not stated" for item in parts.items)),
        },
        "recipe": {
            "seed": order.seed,
            "calibration": order.calibration,
            "duplicates": "kept" if order.keep_duplicates else "left out",
            "patches": order.patches if backbone.map_stage else 0,
            **_more_of_the_recipe(order, parts),
        },
        "versions": {
            "dicom_node": __version__,
            **{package: version(package) for package in ("torch", "faiss-cpu", "pydicom", "numpy", "pillow")},
        },
    }


def _more_of_the_recipe(order: Order, parts: Parts) -> dict[str, str | int | float]:
    """Return what differs from the defaults of an order: a bank built by them keeps its hash."""
    more: dict[str, str | int | float] = {}
    if order.drop_outliers:
        more |= {"drop_outliers": order.drop_outliers, "dropped_images": len(parts.kept.dropped)}
    if order.rules != Eligibility():
        more["rules"] = order.rules.model_dump_json()
    more |= index_recipe(order.index, parts.index.file.facts)
    return {**more, **head_facts(order.head), **order.origin}


def _keep_weights(order: Order, backbone: Backbone) -> None:
    """Put the weights that the bank needs beside the banks, where the node looks for them."""
    if order.weights is None:
        return
    folder = order.out / WEIGHTS
    place = folder / backbone.weights_sha256
    if not place.exists():
        folder.mkdir(exist_ok=True)
        staging = place.with_suffix(".writing")
        shutil.copyfile(order.weights, staging)
        staging.replace(place)
        sync_folder(folder)


def _require(usable: int, files: int, skipped: list[tuple[str, str]]) -> None:
    if usable < MINIMUM_NORMALS:
        first = f"; the first left out: {skipped[0][0]} ({skipped[0][1]})" if skipped else ""
        raise BankError(
            f"{usable} usable normals out of {files} files; at least {MINIMUM_NORMALS} must stand in the "
            f"bank, and {FEW_NORMALS} or more are sensible{first}"
        )


def _warnings(order: Order, manifest: Manifest) -> list[str]:
    warnings = []
    if manifest.normal_images < FEW_NORMALS:
        warnings.append(
            f"{manifest.normal_images} normals in the bank: percentiles and threshold are rough "
            f"below {FEW_NORMALS}"
        )
    if manifest.calibration_images * order.false_positive_rate < 1:
        warnings.append(
            f"{manifest.calibration_images} calibration images cannot tell a false-positive rate of "
            f"{order.false_positive_rate:g}: the threshold is simply their highest score"
        )
    people = order.population
    if not (people.modalities or people.views or people.minimum_age or people.maximum_age):
        warnings.append("no population was stated: the bank admits every eligible image (see --population-...)")
    return warnings
