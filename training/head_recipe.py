"""How a Deep kNN head is trained, and what is recorded of it in the head's file. Pure.

Owns the recipe, the record, and the check that a head meets the backbone and the images it was trained with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.batch_norm import digest
from dicom_node.score.head import Head, load_head
from dicom_node.score.manifest import NORMALISATIONS, Preprocessing
from training.dataset import Item

BatchNormMode = Literal["frozen", "adapt"]
Select = Literal["last", "best-heldout"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def half() -> Preprocessing:
    """Return the paper's normalisation (0.5, 0.5), everything else at its default."""
    mean, std = NORMALISATIONS["half"]
    return Preprocessing(mean=mean, std=std)


class HeadRecipe(_Part):
    """Everything but the images that a trained head follows from; the defaults are the paper's.

    Attributes
    ----------
    backbone, weights_sha256
        Whose features.
    bn
        "adapt": BatchNorm layers are in train mode, so their statistics drift to the images, as in the paper's
        code. "frozen": the backbone is used as published.
    views_per_image
        Random views embedded once for each image and drawn from in every epoch; for "frozen" only ("adapt"
        draws two new ones in every epoch).
    views_seed
        Of those views; trainings that differ in `seed` alone share them.
    betas
        Adam's; there is no weight decay, and the learning rate is constant.
    seed
        Of the initial weights, of the order of the images, and of the split.
    held_out
        Share of the images, by patient, that are not trained on; their loss is logged in every epoch. A bank of
        the same images whose calibration has the same share and seed is calibrated with these very images.
    select
        Which epoch's head is kept: the last, or the one of the lowest held-out loss.
    """

    backbone: str
    weights_sha256: str
    preprocessing: Preprocessing = Field(default_factory=half)
    bn: BatchNormMode = "frozen"
    views_per_image: Annotated[int, Field(ge=2, le=256)] = 8
    views_seed: Annotated[int, Field(ge=0)] = 0
    lr: Annotated[float, Field(gt=0)] = 1e-5
    betas: tuple[float, float] = (0.5, 0.999)
    epochs: Annotated[int, Field(ge=1)] = 100
    batch: Annotated[int, Field(ge=2)] = 64
    seed: Annotated[int, Field(ge=0)] = 0
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    select: Select = "last"


class HeadRecord(_Part):
    """A recipe and what came of it; stands as JSON in the head's file.

    Attributes
    ----------
    epoch
        Whose head it is, counted from 1.
    loss, held_out_loss
        Mean loss of that epoch, in [-1, 1].
    statistics_sha256
        Of the drifted BatchNorm statistics, "" where the backbone is used as published.
    trained_on
        Shortened pixel hashes of the images trained on, so that a calibration with the same images is noticed.
    """

    recipe: HeadRecipe
    epoch: int
    loss: float
    held_out_loss: float
    statistics_sha256: str = ""
    held_out_images: int
    trained_on: tuple[str, ...]

    def to_json(self) -> str:
        """Return the one form in which records are stored."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def short_id(item: Item) -> str:
    """Return what `HeadRecord.trained_on` holds of an image."""
    return item.pixel_id[:16]


def statistics_path(head: Path) -> Path:
    """Return where the BatchNorm statistics of a head's file stand."""
    return head.with_name(f"{head.stem}.backbone_bn.safetensors")


def read_head(path: Path) -> tuple[Head, bytes]:
    """Read a trained head and its BatchNorm statistics (empty where it has none).

    Raises
    ------
    BankError
        If a file is missing, damaged, or does not record how it was trained.
    """
    try:
        head = load_head(path.read_bytes())
        record = record_of(head)
        if record is None:
            raise BankError(f"{path.name} does not record how it was trained; train it with train-head")
        statistics = statistics_path(path).read_bytes() if record.statistics_sha256 else b""
    except OSError as error:
        raise BankError(f"{error.filename} cannot be read: {error.strerror}") from error
    if digest(statistics) != record.statistics_sha256:
        raise BankError(
            f"{statistics_path(path).name} has SHA-256 {digest(statistics)}; the head was trained with "
            f"{record.statistics_sha256}"
        )
    return head, statistics


def record_of(head: Head) -> HeadRecord | None:
    """Return what a head records of its training, None for one without.

    Raises
    ------
    BankError
        If the record is damaged.
    """
    if not head.recipe:
        return None
    try:
        return HeadRecord.model_validate_json(head.recipe)
    except ValidationError as error:
        raise BankError(
            f"the head's record of its training cannot be read: {error.errors()[0]['msg']}"
        ) from error


def fitted(head: Head, statistics: bytes, backbone: Backbone, preprocessing: Preprocessing) -> Backbone:
    """Return the backbone as the head was trained with it.

    Raises
    ------
    BankError
        If the head was trained with another backbone, or with images prepared otherwise.
    """
    record = record_of(head)
    if record is not None:
        recipe = record.recipe
        if (recipe.backbone, recipe.weights_sha256) != (backbone.name, backbone.weights_sha256):
            raise BankError(
                f"the head was trained with {recipe.backbone} of SHA-256 {recipe.weights_sha256}; the bank's "
                f"backbone is {backbone.name} of {backbone.weights_sha256}"
            )
        if recipe.preprocessing != preprocessing:
            ours, theirs = preprocessing.model_dump(), recipe.preprocessing.model_dump()
            odd = [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]
            raise BankError(f"the head was trained with {'; '.join(odd)}; give the bank the same options")
        if digest(statistics) != record.statistics_sha256:
            raise BankError("the head's BatchNorm statistics are not those it was trained with")
    return backbone.with_statistics(statistics) if statistics else backbone


def trained_on_warnings(head: Head, calibrating: Sequence[Item]) -> list[str]:
    """Return a warning if images that calibrate a bank are among those its head was trained on."""
    record = record_of(head)
    seen = set(record.trained_on) if record else set()
    count = sum(short_id(item) in seen for item in calibrating)
    if not count:
        return []
    warning = (
        f"the head was trained on {count} of {len(calibrating)} calibration images, so the threshold may be "
        "somewhat low; give both the same share and seed"
    )
    return [warning]


def head_facts(head: Head) -> dict[str, str | int | float]:
    """Return the head's training as the manifest's recipe tells it, each key with "head." before it."""
    record = record_of(head)
    if record is None:
        return {}
    told = record.recipe.model_dump(
        mode="json", exclude={"preprocessing", "backbone", "weights_sha256", "betas"}
    )
    told |= {"betas": ",".join(map(str, record.recipe.betas)), "epoch": record.epoch, "loss": record.loss}
    told |= {"held_out_loss": record.held_out_loss, "trained_on_images": len(record.trained_on)}
    names = hashlib.sha256("\n".join(record.trained_on).encode()).hexdigest()
    return {f"head.{key}": value for key, value in (told | {"trained_on_sha256": names}).items()}
