"""Embeds files in shards that survive a kill: a finished shard is a file, and a restart reuses it.

Owns the build's work folder. Knows nothing of calibration or banks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dicom_node import __version__
from dicom_node.domain.errors import BankError
from dicom_node.score.backbone import Backbone
from dicom_node.score.durable import sync_folder, write_synced
from dicom_node.score.scoring import embed_views
from training.dataset import Item, Reader
from training.manifest import Entry

SHARD = 32
"""Files in a shard: at most this much work is lost by a kill, and this many images are in memory at once."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Files and their features.

    Attributes
    ----------
    items
        One for each usable file.
    features
        (N, A, D) float32, the backbone's, before any head.
    skipped
        (file name, reason) of each file left out.
    reused
        How many files came from shards finished before.
    paths
        The file of each item.
    """

    items: list[Item]
    features: npt.NDArray[np.float32]
    skipped: list[tuple[str, str]]
    reused: int
    paths: list[Path]


@contextmanager
def work_folder(out: Path, name: str) -> Iterator[Path]:
    """Hold the work folder of one build; it is removed by `finish`, and else kept for the next attempt.

    Raises
    ------
    BankError
        If another process builds the same bank.
    """
    folder = out / f".{name}.work"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BankError(f"another process is building {name} in {out.name}; wait for it") from None
        yield folder


def finish(folder: Path) -> None:
    """Remove the work folder, and with it the key of the patient hashes."""
    shutil.rmtree(folder)


def patient_key(folder: Path) -> bytes:
    """Return the key for patient hashes: random, of this work folder, readable by its owner only."""
    path = folder / "key"
    if not path.exists():
        staging = folder / "key.writing"
        staging.touch(mode=0o600)
        write_synced(staging, secrets.token_bytes(32))
        staging.replace(path)
    return path.read_bytes()


def embed_entries(
    entries: Sequence[Entry],
    reader: Reader,
    backbone: Backbone,
    folder: Path,
    progress: Callable[[int], None],
) -> Embedded:
    """Embed every file, reusing shards that an earlier attempt with the same recipe finished.

    Parameters
    ----------
    folder
        Where shards are kept.
    progress
        Told how many files each step has done.
    """
    recipe = _recipe(reader, backbone)
    items: list[Item] = []
    parts: list[npt.NDArray[np.float32]] = []
    skipped: list[tuple[str, str]] = []
    paths: list[Path] = []
    reused = 0
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for at in range(0, len(entries), SHARD):
            shard = entries[at : at + SHARD]
            path = folder / f"{_shard_key(recipe, shard)}.safetensors"
            loaded = _load_shard(path)
            if loaded is None:
                loaded = _embed_shard(shard, reader, backbone, pool)
                _save_shard(path, *loaded)
            else:
                reused += len(shard)
            found, features = loaded
            skipped += [(e.path.name, i.skipped) for e, i in zip(shard, found, strict=True) if i.skipped]
            items += [item for item in found if not item.skipped]
            paths += [e.path for e, i in zip(shard, found, strict=True) if not i.skipped]
            parts.append(features)
            progress(len(shard))
    return Embedded(items, np.concatenate(parts), skipped, reused, paths)


def _embed_shard(
    shard: Sequence[Entry], reader: Reader, backbone: Backbone, pool: ThreadPoolExecutor
) -> tuple[list[Item], npt.NDArray[np.float32]]:
    items, views = [], []
    parts = [np.empty((0, len(reader.views), backbone.dim), dtype=np.float32)]
    for item, cut in pool.map(reader.read, shard):
        items.append(item)
        if cut is not None:
            views.append(cut)
        if len(views) * len(reader.views) >= 32:
            parts.append(embed_views(backbone, np.stack(views), reader.preprocessing))
            views.clear()
    if views:
        parts.append(embed_views(backbone, np.stack(views), reader.preprocessing))
    return items, np.concatenate(parts)


def _recipe(reader: Reader, backbone: Backbone) -> dict[str, object]:
    return {
        "version": __version__,
        "backbone": [backbone.name, backbone.weights_sha256, *filter(None, [backbone.adapted])],
        "preprocessing": reader.preprocessing.model_dump(mode="json"),
        "views": list(reader.views),
        "rules": reader.rules.model_dump(mode="json"),
        "population": reader.population.model_dump(mode="json"),
    }


def _shard_key(recipe: dict[str, object], shard: Sequence[Entry]) -> str:
    """Hash everything that a shard's content follows from; a changed file has another size or time."""
    files = []
    for entry in shard:
        try:
            facts = entry.path.stat()
            files.append([str(entry.path), facts.st_size, facts.st_mtime_ns, *_stated(entry)])
        except OSError:
            files.append([str(entry.path), -1, -1, *_stated(entry)])
    content = json.dumps([recipe, files], sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:40]


def _stated(entry: Entry) -> list[object]:
    return [entry.patient, entry.view, entry.age, entry.modality, entry.site]


def _save_shard(path: Path, items: list[Item], features: npt.NDArray[np.float32]) -> None:
    content = save_tensors({"features": features}, metadata={"items": json.dumps([i.to_dict() for i in items])})
    staging = path.with_suffix(".writing")
    write_synced(staging, bytes(content))
    staging.replace(path)
    sync_folder(path.parent)


def _load_shard(path: Path) -> tuple[list[Item], npt.NDArray[np.float32]] | None:
    try:
        content = path.read_bytes()
        features = load_tensors(content)["features"]
        length = int.from_bytes(content[:8], "little")
        stated = json.loads(content[8 : 8 + length])["__metadata__"]["items"]
        items = [Item(**values) for values in json.loads(stated)]
    except (FileNotFoundError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    return items, features
