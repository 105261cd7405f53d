"""Embeds files in shards that survive a kill: a finished shard is a file, and a restart reuses it.

Owns the build's work folder. Knows nothing of calibration or banks.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
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
from training.dataset import Item, Reader
from training.engines import engine
from training.manifest import Entry
from training.mapped import spool

SHARD = 32
"""Files in a shard: for each core at most this much is lost by a kill, and this many images are in memory."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Files and their features.

    Attributes
    ----------
    items
        One for each usable file.
    features
        (N, A, D) float32, the backbone's, before any head; read-only, in a file (see `mapped`).
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
    where: str = "local",
) -> Embedded:
    """Embed every file, reusing shards that an earlier attempt with the same recipe finished.

    Parameters
    ----------
    folder
        Where shards are kept.
    progress
        Told how many files each step has done.
    where
        One of `engines.ENGINES`; the features are the same.
    """
    recipe = _recipe(reader, backbone)
    shards = [entries[at : at + SHARD] for at in range(0, len(entries), SHARD)]
    places = [folder / f"{_shard_key(recipe, shard)}.safetensors" for shard in shards]
    todo = []
    for number, (shard, place) in enumerate(zip(shards, places, strict=True)):
        if _load_shard(place) is None:
            todo.append(number)
        else:
            progress(len(shard))
    reused = len(entries) - sum(len(shards[number]) for number in todo)
    for at, (items, features) in engine(where)([shards[number] for number in todo], reader, backbone):
        _save_shard(places[todo[at]], items, features)
        progress(len(shards[todo[at]]))
    return _together(shards, places, (len(reader.views), backbone.dim), reused)


def _together(
    shards: Sequence[Sequence[Entry]], places: Sequence[Path], tail: tuple[int, int], reused: int
) -> Embedded:
    """Read finished shards back, one after another."""
    items: list[Item] = []
    skipped: list[tuple[str, str]] = []
    paths: list[Path] = []

    def features() -> Iterator[npt.NDArray[np.float32]]:
        for shard, place in zip(shards, places, strict=True):
            loaded = _load_shard(place)
            if loaded is None:
                raise BankError(
                    f"{place.name} of {place.parent.name} was changed during the build; start it again"
                )
            found, part = loaded
            for entry, item in zip(shard, found, strict=True):
                if item.skipped:
                    skipped.append((entry.path.name, item.skipped))
                else:
                    items.append(item)
                    paths.append(entry.path)
            yield part

    spooled = spool(features(), tail, places[0].parent)
    return Embedded(items, spooled, skipped, reused, paths)


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
