"""Trains Deep kNN's adaptor and predictor on normals: the order of the steps, epochs, checkpoint, files.

Knows nothing of banks. Loss and layers are in `siamese`, pairs of views in `head_pairs`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dicom_node.config import Eligibility
from dicom_node.domain.errors import BankError
from dicom_node.score import batch_norm
from dicom_node.score.backbone import TorchBackbone, load_backbone
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.head import save_head
from dicom_node.score.weights import Weights
from training import head_checkpoint
from training.calibrate import split_patients, unique_rows
from training.dataset import Item, Reader
from training.embed import embed_entries, finish, patient_key, work_folder
from training.head_checkpoint import Progress
from training.head_curves import write_curves
from training.head_drift import KeptDrift
from training.head_epochs import run_epochs
from training.head_pairs import CachedPairs, FreshPairs, Pairs
from training.head_recipe import HeadRecipe, HeadRecord, short_id, statistics_path
from training.manifest import Entry, read_entries
from training.random_views import random_reader
from training.siamese import new_head

MINIMUM_NORMALS = 20

_CACHED = 0
"""Draw of the views that are embedded once; `head_pairs` has the others."""

_HEADS_OWN = {"lr", "betas", "epochs", "select"}
"""What of a recipe the drift of a backbone's statistics does not depend on."""


@dataclass(frozen=True, slots=True)
class HeadOrder:
    """What is to be trained.

    Attributes
    ----------
    images
        Folder or CSV of normals. Files whose split is "test" or "calibration" are not looked at.
    out
        The head's file; the curves, and for bn "adapt" the BatchNorm statistics, are written beside it.
    recipe
        With the backbone's name and SHA-256 as `load_backbone` gives them.
    cache
        Folder that keeps what was embedded for further trainings (bn "adapt": of every epoch, which other learning
        rates and longer trainings of the same seed then find); without it nothing is kept.
    """

    images: Path
    out: Path
    recipe: HeadRecipe
    weights: Weights | None = None
    cache: Path | None = None
    rules: Eligibility = field(default_factory=Eligibility)


@dataclass(frozen=True, slots=True)
class HeadSummary:
    """What was trained. `resumed_at` is the epoch after which an earlier attempt went on, 0 for none."""

    head: str
    curves: str
    picture: str
    statistics: str
    images: int
    held_out_images: int
    epoch: int
    loss: float
    held_out_loss: float
    resumed_at: int
    device: str
    skipped: list[tuple[str, str]]
    duplicates: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Data:
    pairs: Pairs
    trained_on: tuple[str, ...]
    held_out: tuple[str, ...]
    skipped: list[tuple[str, str]]
    duplicates: int


def default_device() -> str:
    """Return "cuda" where torch finds a GPU, else "cpu"."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def train_head(
    order: HeadOrder,
    *,
    device: str,
    started: Callable[[int], None],
    progress: Callable[[int], None],
    epoch_done: Callable[[int, float, float], None],
    checkpoint_seconds: float = 30.0,
) -> HeadSummary:
    """Train a head, going on where an attempt that was killed had come to.

    Parameters
    ----------
    device
        "cpu" or "cuda".
    started, progress
        Told how many files there are to read before the first epoch, and how many more are done.
    epoch_done
        Told the epoch (from 1), its mean loss and its held-out loss.
    checkpoint_seconds
        A checkpoint is written after the first epoch that ends so long after the one before; 0 for every epoch.

    Raises
    ------
    BankError
        If the order cannot be carried out, or the loss is no longer finite.
    """
    begun = time.monotonic()
    if order.out.exists():
        raise BankError(f"{order.out.name} exists; a head is never changed, choose another name")
    backbone = load_backbone(order.recipe.backbone, order.weights)
    if backbone.weights_sha256 != order.recipe.weights_sha256:
        raise BankError(
            f"the recipe is for {backbone.name} of SHA-256 {order.recipe.weights_sha256}; "
            f"here it is {backbone.weights_sha256}"
        )
    backbone.moved_to(device)
    with (
        work_folder(order.out.parent, order.out.stem) as folder,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        data = _data(order, backbone, folder, pool, device, started, progress)
        key = head_checkpoint.run_key(order.recipe.model_dump_json(), data.trained_on, data.held_out)
        checkpoint = folder / "checkpoint.safetensors"
        done = head_checkpoint.load(checkpoint, key) or Progress()
        resumed = len(done.history)

        saved = time.monotonic()

        def keep(now: Progress) -> None:
            nonlocal saved
            if time.monotonic() - saved >= checkpoint_seconds or len(now.history) == order.recipe.epochs:
                head_checkpoint.save(checkpoint, now, key)
                saved = time.monotonic()
            epoch_done(len(now.history), *now.history[-1])

        run_epochs(order.recipe, data.pairs, backbone, done, keep, device)
        record, curves, picture = _write(order, backbone, data, done)
        finish(folder)
    return HeadSummary(
        head=str(order.out),
        curves=str(curves),
        picture=str(picture or ""),
        statistics=str(statistics_path(order.out)) if record.statistics_sha256 else "",
        images=len(data.trained_on),
        held_out_images=len(data.held_out),
        epoch=record.epoch,
        loss=record.loss,
        held_out_loss=record.held_out_loss,
        resumed_at=resumed,
        device=device,
        skipped=data.skipped,
        duplicates=data.duplicates,
        seconds=round(time.monotonic() - begun, 3),
    )


def _data(
    order: HeadOrder,
    backbone: TorchBackbone,
    folder: Path,
    pool: ThreadPoolExecutor,
    device: str,
    started: Callable[[int], None],
    progress: Callable[[int], None],
) -> _Data:
    recipe = order.recipe
    with _cache(order, folder) as cache:
        key = patient_key(cache)
        every = read_entries(order.images, key)
        entries = [entry for entry in every if entry.split not in ("test", "calibration")]
        started(len(entries))
        plain = Reader(preprocessing=recipe.preprocessing, views=("squash",), rules=order.rules, key=key)
        if recipe.bn == "frozen":
            reader = random_reader(plain, recipe.views_per_image, (recipe.views_seed, _CACHED))
            found = embed_entries(entries, reader, backbone, cache, progress)
            items, paths, skipped, features = found.items, found.paths, found.skipped, found.features
        else:
            items, paths, skipped, features = [], [], [], None
            for entry, (item, views) in zip(entries, pool.map(plain.read, entries), strict=True):
                progress(1)
                if views is None:
                    skipped.append((entry.path.name, item.skipped))
                else:
                    items.append(item)
                    paths.append(entry.path)
    rows = unique_rows(items)
    if len(rows) < MINIMUM_NORMALS:
        raise BankError(
            f"{len(rows)} usable normals out of {len(entries)} files; a head needs {MINIMUM_NORMALS}"
        )
    distinct = [items[row] for row in rows]
    train, held = split_patients(distinct, recipe.held_out, recipe.seed)
    pairs: Pairs
    if features is not None:
        chosen = features[rows]
        pairs = CachedPairs(chosen[train], chosen[held], recipe.batch, recipe.seed, device)
    else:
        by_path = {entry.path: entry for entry in entries}
        files: list[Entry] = [by_path[paths[row]] for row in rows]
        fresh = FreshPairs(
            [files[row] for row in train], [files[row] for row in held], plain, backbone, pool, recipe.batch,
            recipe.seed,
        )  # fmt: skip
        pairs = fresh
        if order.cache is not None:
            drift = recipe.model_dump_json(exclude=_HEADS_OWN)
            of = head_checkpoint.run_key(drift, _ids(distinct, train), _ids(distinct, held))
            pairs = KeptDrift(fresh, order.cache / f"drift-{of[:16]}", recipe.batch)
    return _Data(pairs, _ids(distinct, train), _ids(distinct, held), skipped, len(items) - len(rows))


@contextmanager
def _cache(order: HeadOrder, folder: Path) -> Iterator[Path]:
    if order.cache is None:
        yield folder
        return
    with work_folder(order.cache, "views") as cache:
        yield cache


def _ids(items: list[Item], rows: list[int]) -> tuple[str, ...]:
    return tuple(short_id(items[row]) for row in rows)


def _write(
    order: HeadOrder, backbone: TorchBackbone, data: _Data, done: Progress
) -> tuple[HeadRecord, Path, Path | None]:
    """Write the statistics, then the curves, and last the head: where it is, everything is."""
    best = order.recipe.select == "best-heldout"
    epoch = done.best_epoch if best else len(done.history)
    statistics = b""
    if order.recipe.bn == "adapt":
        batch_norm.restore(backbone.module, done.best_statistics if best else done.statistics)
        statistics = batch_norm.to_bytes(backbone.module)
        _replace(statistics_path(order.out), statistics)
    loss, held_out = done.history[epoch - 1]
    record = HeadRecord(
        recipe=order.recipe,
        epoch=epoch,
        loss=loss,
        held_out_loss=held_out,
        statistics_sha256=batch_norm.digest(statistics),
        held_out_images=len(data.held_out),
        trained_on=data.trained_on,
    )
    curves, picture = write_curves(order.out, record, done.history)
    head = new_head(backbone.dim, order.recipe.seed)
    head.load_state_dict(done.best_head if best else done.head)
    _replace(order.out, save_head(head.to_head(record.to_json())))
    return record, curves, picture


def _replace(path: Path, content: bytes) -> None:
    staging = path.with_name(f".{path.name}.writing")
    write_synced(staging, content)
    staging.replace(path)
    sync_folder(path.parent)
