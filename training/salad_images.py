"""Square images on disk as shards, for builders that look at them again and again: memory stays small.

Owns the shard files of the work folder, which a restart reuses. Knows nothing of networks.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dicom_node import __version__
from dicom_node.domain.errors import BankError
from dicom_node.score.durable import sync_folder, write_synced
from training import calibrate
from training.dataset import Item, Reader
from training.manifest import Entry

SHARD = 64
"""Files in a shard; this many images are in memory at once while they are read."""

Images = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Square images in shards.

    Attributes
    ----------
    items
        One for each image.
    places
        Shard and row of each image.
    shards
        (n, S, S) float32 in [0, 1] each, mapped from disk.
    skipped
        (file name, reason) of each file left out.
    reused
        How many files came from shards finished before.
    """

    items: list[Item]
    places: list[tuple[int, int]]
    shards: list[Images]
    skipped: list[tuple[str, str]]
    reused: int

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Sequence[int]) -> Images:
        """Return the images of these rows, (B, S, S) float32 in [0, 1], copied."""
        return np.stack([self.shards[shard][at] for shard, at in (self.places[row] for row in rows)])

    def select(self, rows: Sequence[int]) -> Pictures:
        """Return these images only."""
        chosen = [self.items[row] for row in rows], [self.places[row] for row in rows]
        return Pictures(*chosen, self.shards, self.skipped, self.reused)

    def distinct(self) -> Pictures:
        """Return the first file of each distinct image."""
        return self.select(calibrate.unique_rows(self.items))


def divide_pictures(
    usable: Pictures, separate: Pictures | None, wanted: float, seed: int
) -> tuple[Pictures, Pictures, int]:
    """Return what stands in the bank, what calibrates, and how many of the latter stood in both.

    Parameters
    ----------
    usable
        Normals.
    separate
        Others, which calibrate; without them a share of the normals does, as `calibrate.split_patients` says.

    Raises
    ------
    BankError
        If too few are left on one side.
    """
    if separate is None:
        bank, held = calibrate.split_patients(usable.items, wanted, seed)
        return usable.select(bank), usable.select(held), 0
    known = {item.pixel_id for item in usable.items} | {item.patient for item in usable.items}
    fresh = separate.distinct()
    rows = [row for row, item in enumerate(fresh.items) if not {item.pixel_id, item.patient} & known]
    if len(rows) < 2:
        raise BankError(f"{len(rows)} calibration images of patients who are not in the bank; more are needed")
    return usable, fresh.select(rows), len(fresh) - len(rows)


def read_pictures(
    entries: Sequence[Entry], reader: Reader, folder: Path, progress: Callable[[int], None]
) -> Pictures:
    """Read every file once, reusing shards that an earlier attempt with the same recipe finished.

    Parameters
    ----------
    reader
        Of one view.
    folder
        Where shards are kept.
    progress
        Told how many files each step has done.
    """
    found = Pictures([], [], [], [], 0)
    reused = 0
    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        for at in range(0, len(entries), SHARD):
            part = entries[at : at + SHARD]
            stem = _key(reader, part)
            loaded = _load(folder, stem)
            if loaded is None:
                read = list(pool.map(reader.read, part))
                _save(folder, stem, [v[0] for _, v in read if v is not None], [item for item, _ in read])
                loaded = _load(folder, stem)
                if loaded is None:
                    raise OSError(f"shard {stem} was written and cannot be read back; check the disk")
            else:
                reused += len(part)
            images, items = loaded
            usable = [item for item in items if not item.skipped]
            found.places.extend((len(found.shards), row) for row in range(len(usable)))
            found.items.extend(usable)
            found.shards.append(images)
            found.skipped.extend(
                (e.path.name, i.skipped) for e, i in zip(part, items, strict=True) if i.skipped
            )
            progress(len(part))
    return Pictures(found.items, found.places, found.shards, found.skipped, reused)


def _key(reader: Reader, part: Sequence[Entry]) -> str:
    """Hash everything that a shard's content follows from; a changed file has another size or time."""
    files = []
    for entry in part:
        facts = entry.path.stat() if entry.path.exists() else None
        files.append([repr(entry), facts.st_size if facts else -1, facts.st_mtime_ns if facts else -1])
    recipe = [__version__, reader.preprocessing.model_dump(mode="json"), reader.views, repr(reader.rules)]
    content = json.dumps([recipe, repr(reader.population), files], sort_keys=True).encode()
    return f"pixels-{hashlib.sha256(content).hexdigest()[:40]}"


def _save(folder: Path, stem: str, images: Sequence[Images], items: Sequence[Item]) -> None:
    array = BytesIO()
    # A file without a pixel cannot be mapped: a shard without a usable image holds one zero.
    np.save(array, np.stack(images) if images else np.zeros((1, 1, 1), dtype=np.float32), allow_pickle=False)
    facts = json.dumps([item.to_dict() for item in items]).encode()
    # The list of items comes last: a shard without it does not count.
    for name, content in ((f"{stem}.npy", array.getbuffer()), (f"{stem}.json", facts)):
        staging = folder / f"{name}.writing"
        write_synced(staging, bytes(content))
        staging.replace(folder / name)
    sync_folder(folder)


def _load(folder: Path, stem: str) -> tuple[Images, list[Item]] | None:
    try:
        items = [Item(**values) for values in json.loads((folder / f"{stem}.json").read_bytes())]
        images = np.load(folder / f"{stem}.npy", mmap_mode="r", allow_pickle=False)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return images, items
