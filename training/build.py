"""Builds a bank: embed, leave out duplicates, split by patient, calibrate, write; owns that order."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dicom_node.score.backbone import Backbone, find_weights, load_backbone
from dicom_node.score.bank import WEIGHTS, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.view_names import check_views
from dicom_node.score.weights import Weights
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
from training.stated import (
    MINIMUM_NORMALS,
    backbone_facts,
    check_place,
    facts_of,
    few_normals,
    recipe_of,
    require,
    warnings_of,
)
from training.thumbnails import thumbnails_for

__all__ = ["MINIMUM_NORMALS", "Order", "Summary", "build"]

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
    check_place(order.out, order.name)
    check_views(order.views)
    weights = _weights(order)
    published = load_backbone(order.backbone, weights)
    backbone = fitted(order.head, order.statistics, published, order.preprocessing)
    order.head.output_dim(backbone.dim)
    with work_folder(order.out, order.name) as folder:
        key = patient_key(folder)
        reader = Reader(order.preprocessing, order.views, order.rules, key, order.population)
        entries, others, kept_for_test = read_sources(order.images, order.calibration_images, key)
        started(len(entries) + len(others))
        normals = embed_entries(entries, reader, backbone, folder, progress, order.engine)
        separate = embed_entries(others, reader, backbone, folder, progress, order.engine) if others else None
        usable, duplicates = (normals, 0) if order.keep_duplicates else distinct(normals, folder)
        require(len(usable.items), len(entries), normals.skipped)
        parts = divide(order, usable, separate, folder)
        require(len(parts.items), len(entries), normals.skipped)
        calibration = Calibration.of(parts.scores)
        _keep_weights(order.out, weights, backbone)
        manifest = write_bank(
            order.out / order.name,
            vectors=parts.index.file,
            head=order.head,
            calibration=calibration,
            images=[item.file_id for item in parts.items],
            facts=_facts(order, backbone, parts, created_at),
            statistics=order.statistics,
            patches=patches_for(order, usable, separate, parts.items, backbone),
            pictures=thumbnails_for(order, usable, parts.items),
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
        warnings=few_normals(manifest)
        + warnings_of(manifest)
        + trained_on_warnings(order.head, _calibrating(usable, separate, parts)),
    )


def _weights(order: Order) -> Weights | None:
    """Return the weights file that the backbone needs, or None where it brings its own."""
    if order.weights is None:
        return find_weights(order.backbone)
    return Weights(order.weights, order.weights_licence, order.weights_training_data)


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
        **facts_of(order, parts.items, created_at, ("torch", "faiss-cpu", "pydicom", "numpy", "pillow")),
        "backbone": backbone_facts(backbone),
        "preprocessing": order.preprocessing,
        "views": order.views,
        "k": order.k,
        "calibration": parts.how,
        "recipe": {
            "patches": order.patches if backbone.map_stage else 0,
            **_more_of_the_recipe(order, parts),
            **recipe_of(order, order.seed),
        },
    }


def _more_of_the_recipe(order: Order, parts: Parts) -> dict[str, str | int | float]:
    """Return what differs from the defaults of an order: a bank built by them keeps its hash."""
    more: dict[str, str | int | float] = {}
    if order.drop_outliers:
        more |= {"drop_outliers": order.drop_outliers, "dropped_images": len(parts.kept.dropped)}
    more |= index_recipe(order.index, parts.index.file.facts)
    more |= {"thumbnails": 1} if order.thumbnails else {}
    return {**more, **head_facts(order.head)}


def _keep_weights(banks: Path, weights: Weights | None, backbone: Backbone) -> None:
    """Put the weights that the bank needs beside the banks, where the node looks for them."""
    if weights is None:
        return
    folder = banks / WEIGHTS
    place = folder / backbone.weights_sha256
    if not place.exists():
        folder.mkdir(exist_ok=True)
        staging = place.with_suffix(".writing")
        write_synced(staging, weights.path.read_bytes())
        staging.replace(place)
        sync_folder(folder)
