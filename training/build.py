"""Builds a bank: embed, leave out duplicates, split by patient, calibrate, write; owns that order."""

from __future__ import annotations

import shutil
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
from dicom_node.score.backbone import Backbone, load_backbone
from dicom_node.score.bank import WEIGHTS, check_name, write_bank
from dicom_node.score.calibration import Calibration
from dicom_node.score.durable import sync_folder
from dicom_node.score.head import Head
from dicom_node.score.manifest import BackboneFacts, Manifest, Population, Preprocessing
from dicom_node.score.views import DEFAULT_VIEWS, check_views
from training import calibrate
from training.dataset import Item, Reader
from training.embed import Embedded, embed_entries, finish, patient_key, work_folder
from training.manifest import read_entries
from training.model_card import write_card

MINIMUM_NORMALS = 20
"""Below this many usable normals percentiles and a threshold mean nothing, and no bank is written."""

FEW_NORMALS = 200
"""Below this many the summary warns."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built.

    Attributes
    ----------
    images
        Folder or CSV of normals.
    out, name
        The bank becomes ``out/name``.
    calibration
        Share (below 1) or number (from 1) of images held out, or "leave-one-out".
    calibration_images
        Folder or CSV of other normals that calibrate instead; all of `images` then stand in the bank.
    keep_duplicates
        Let an image that is there several times count several times, for comparison with published figures.
    """

    images: Path
    out: Path
    name: str = "normals"
    backbone: str = "lite0"
    weights: Path | None = None
    views: tuple[str, ...] = DEFAULT_VIEWS
    k: int = 1
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    calibration: float | str = 0.2
    calibration_images: Path | None = None
    false_positive_rate: float = 0.05
    seed: int = 0
    keep_duplicates: bool = False
    population: Population = field(default_factory=Population)
    rules: Eligibility = field(default_factory=Eligibility)
    head: Head = field(default_factory=Head)


@dataclass(frozen=True, slots=True)
class Summary:
    """What was built, and what was left out and why. `skipped` pairs file names with reasons."""

    bank: str
    path: str
    bank_hash: str
    normal_images: int
    calibration_images: int
    calibration: str
    patients: int
    vectors: int
    threshold: float
    calibration_mean: float
    calibration_std: float
    duplicates: int
    shared_with_bank: int
    skipped: list[tuple[str, str]]
    reused: int
    seconds: float
    images_per_second: float
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What stands in the bank and what calibrates it."""

    items: list[Item]
    vectors: Vectors
    scores: npt.NDArray[np.float64]
    how: str
    shared: int = 0


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
    backbone = load_backbone(order.backbone, order.weights)
    order.head.output_dim(backbone.dim)
    with work_folder(order.out, order.name) as folder:
        key = patient_key(folder)
        reader = Reader(order.preprocessing, order.views, order.rules, key, order.population)
        entries = read_entries(order.images, key)
        others = read_entries(order.calibration_images, key) if order.calibration_images else []
        started(len(entries) + len(others))
        normals = embed_entries(entries, reader, backbone, folder, progress)
        separate = embed_entries(others, reader, backbone, folder, progress) if others else None
        usable, duplicates = (normals, 0) if order.keep_duplicates else _distinct(normals)
        _require(len(usable.items), len(entries), normals.skipped)
        parts = _divide(order, usable, separate)
        _require(len(parts.items), len(entries), normals.skipped)
        calibration = Calibration.of(parts.scores)
        manifest = write_bank(
            order.out / order.name,
            vectors=parts.vectors.reshape(-1, parts.vectors.shape[2]),
            head=order.head,
            calibration=calibration,
            images=[item.file_id for item in parts.items],
            facts=_facts(order, backbone, parts, created_at),
        )
        write_card(order.out / order.name, manifest)
        _keep_weights(order, backbone)
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
        skipped=normals.skipped + (separate.skipped if separate else []),
        reused=reused,
        seconds=round(seconds, 3),
        images_per_second=round((files - reused) / seconds, 2),
        warnings=_warnings(order, manifest),
    )


def _distinct(embedded: Embedded) -> tuple[Embedded, int]:
    rows = calibrate.unique_rows(embedded.items)
    kept = Embedded(
        [embedded.items[row] for row in rows],
        embedded.features[rows],
        embedded.skipped,
        embedded.reused,
        [embedded.paths[row] for row in rows],
    )
    return kept, len(embedded.items) - len(rows)


def _divide(order: Order, usable: Embedded, separate: Embedded | None) -> _Parts:
    vectors = _embeddings(order.head, usable.features)
    patients = [item.patient for item in usable.items]
    if separate is not None:
        known = {item.pixel_id for item in usable.items} | set(patients)
        fresh, _ = _distinct(separate)
        rows = [row for row, item in enumerate(fresh.items) if not {item.pixel_id, item.patient} & known]
        if len(rows) < 2:
            raise BankError(
                f"{len(rows)} calibration images of patients who are not in the bank; more are needed"
            )
        queries = _embeddings(order.head, fresh.features[rows])
        scores = calibrate.score_against(vectors, queries, order.k)
        return _Parts(usable.items, vectors, scores, "separate", len(fresh.items) - len(rows))
    if isinstance(order.calibration, str):
        scores = calibrate.score_leave_one_out(vectors, patients, order.k)
        return _Parts(usable.items, vectors, scores, calibrate.LEAVE_ONE_OUT)
    bank, held = calibrate.split_patients(usable.items, order.calibration, order.seed)
    scores = calibrate.score_against(vectors[bank], vectors[held], order.k)
    return _Parts([usable.items[row] for row in bank], vectors[bank], scores, "held-out")


def _embeddings(head: Head, features: Vectors) -> Vectors:
    count, views, dim = features.shape
    return head.apply(features.reshape(count * views, dim)).reshape(count, views, -1)


def _facts(order: Order, backbone: Backbone, parts: _Parts, created_at: datetime) -> dict[str, Any]:
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
        },
        "versions": {
            "dicom_node": __version__,
            **{package: version(package) for package in ("torch", "faiss-cpu", "pydicom", "numpy", "pillow")},
        },
    }


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
