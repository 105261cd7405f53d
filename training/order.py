"""What is asked of a build, and what it answers. Knows nothing of how it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dicom_node.config import Eligibility
from dicom_node.score.head import Head
from dicom_node.score.manifest import Population, Preprocessing
from dicom_node.score.view_names import DEFAULT_VIEWS

DEFAULT_PATCHES = 4000
"""Enough for a heat map of a chest; see tests/bench/bench_saliency.py."""


@dataclass(frozen=True, slots=True)
class IndexOrder:
    """How the bank is to be searched.

    Attributes
    ----------
    kind
        "flat": every vector is compared. "ivf-flat": inverted lists, as many probed as the measured recall asks
        for. "ivf-fp16": the same of numbers in 16 bits, in half the room. "auto": flat, above `flat_up_to` ivf-flat.
    flat_up_to
        Vectors.
    """

    kind: Literal["auto", "flat", "ivf-flat", "ivf-fp16"] = "auto"
    flat_up_to: int = 1_000_000


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
    drop_outliers
        Share of the bank's images to leave out, the farthest from the others first; see `contamination`.
        Calibration images are never left out: the threshold must hold for normals as they come.
    patches
        How many patches of normals the bank carries for heat maps (see `training.patches`); 0 for none.
    thumbnails
        Whether the bank carries small pictures of its normals, for people; it then shows patients' chests.
    weights, weights_licence, weights_training_data
        The backbone's weights file, and what is known of its origin.
    head, statistics
        As from `head_recipe.read_head`; by default the identity, and the backbone as published.
    index
        How it is searched.
    engine
        Where embedding runs, one of `engines.ENGINES`; the bank is the same.
    origin
        More to record in the manifest's recipe.
    """

    images: Path
    out: Path
    name: str = "normals"
    backbone: str = "lite0"
    weights: Path | None = None
    weights_licence: str = ""
    weights_training_data: str = ""
    views: tuple[str, ...] = DEFAULT_VIEWS
    k: int = 1
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    calibration: float | str = 0.2
    calibration_images: Path | None = None
    false_positive_rate: float = 0.05
    seed: int = 0
    keep_duplicates: bool = False
    drop_outliers: float = 0.0
    patches: int = DEFAULT_PATCHES
    thumbnails: bool = False
    index: IndexOrder = field(default_factory=IndexOrder)
    engine: str = "local"
    origin: Mapping[str, str | int | float] = field(default_factory=dict)
    population: Population = field(default_factory=Population)
    rules: Eligibility = field(default_factory=Eligibility)
    head: Head = field(default_factory=Head)
    statistics: bytes = b""


@dataclass(frozen=True, slots=True)
class Summary:
    """What was built, and what was left out and why. `skipped` pairs file names with reasons.

    `flagged` and `dropped` count outliers (see `contamination`), which `review` lists; `kept_for_test` counts
    the files whose split is "test".
    """

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
    flagged: int
    dropped: int
    review: str
    kept_for_test: int
    skipped: list[tuple[str, str]]
    reused: int
    seconds: float
    images_per_second: float
    warnings: list[str] = field(default_factory=list)
