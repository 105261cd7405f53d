"""Pictures for the reading worklist: drawn in a process of their own, kept in a cache that may go at any time.

Owns the cache: files by the image's digest below ``store.root/pictures``, bounded in bytes, and gone with their images.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.domain.errors import (
    BankError,
    CannotDecodeError,
    NotFoundError,
    OutOfResourcesError,
    PoisonError,
    StoreError,
)
from dicom_node.pipeline.desk_pictures import Kind
from dicom_node.score.normal_pictures import NormalPictures
from dicom_node.score.picture_process import PictureProcess
from dicom_node.store import heat_maps, instances

LARGEST_CACHE = 2_000_000_000
"""Bytes."""

IDLE_SECONDS = 120.0
"""So long the process that draws is kept when nobody asks."""

FIRST_REFUSAL, LONGEST_REFUSAL = 60.0, 86_400.0
"""So long, in seconds, an image that could not be drawn is left alone: at first, and after many times."""

_MOST_REFUSED = 10_000
_AHEAD = 200
_SUFFIX = {"thumbnail": ".jpg", "image": ".png"}


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str
    until: float
    seconds: float


class NodePictures:
    """Draws, and remembers what it has drawn. Safe to share between threads.

    Parameters
    ----------
    folder
        Of the cache; made where it is missing.
    process
        Draws.
    banks
        Folder of the banks, whose normals may have pictures.
    require_space
        Raises StoreError where the disk has no room for so many bytes: then nothing is kept.
    clock
        Seconds that never go back.
    """

    def __init__(
        self,
        engine: Engine,
        folder: Path,
        process: PictureProcess,
        banks: Path,
        require_space: Callable[[int], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._folder = folder
        self._process = process
        self._normals = NormalPictures(banks)
        self._require_space = require_space
        self._lock = threading.Lock()
        self._refused: OrderedDict[str, _Refused] = OrderedDict()
        self._clock = clock
        self._drawing: dict[Path, tuple[threading.Lock, int]] = {}
        self._seen = 0

    def picture(self, path: Path, digest: str, kind: Kind) -> bytes:
        """Return a picture of a held image. Raises NotFoundError where none can be made."""
        place = self._place(digest, kind)
        with suppress(OSError):
            return _used(place)
        with self._alone(place):
            with suppress(OSError):
                return _used(place)  # drawn for another who asked for the same
            if (refused := self._refused.get(digest)) is not None and self._clock() < refused.until:
                raise NotFoundError(refused.reason)
            try:
                content = self._process.draw(path, kind)
            except (CannotDecodeError, PoisonError) as error:
                self._refuse(digest, str(error))
                raise NotFoundError(str(error)) from error
            self._refused.pop(digest, None)
            with suppress(OSError, StoreError):  # it is only a cache
                self._require_space(len(content))
                _write(place, content)
            return content

    def draw_ahead(self, path_of: Callable[[str], Path]) -> int:
        """Make thumbnails of the newest images before a list asks for them; return of how many images.

        What was looked at once is not looked at again.

        Parameters
        ----------
        path_of
            Where the image of a digest lies.
        """
        with reading(self._engine) as conn:
            newest = instances.newest(conn, self._seen, _AHEAD)
        for number, digest in newest:
            try:
                if not self._place(digest, "thumbnail").exists():
                    self.picture(path_of(digest), digest, "thumbnail")
            except NotFoundError:
                pass  # as it is told to whoever asks
            except OutOfResourcesError:
                break
            self._seen = number
        return len(newest)

    def rest(self) -> None:
        """End the process that draws where it was idle for long; the next picture starts it again."""
        self._process.rest(IDLE_SECONDS)

    def heat_map(self, sop_instance_uid: str) -> bytes:
        """Return an image's heat map beside the newest report. Raises NotFoundError where none was made for it."""
        with reading(self._engine) as conn:
            found = heat_maps.newest(conn, sop_instance_uid)
        if found is None:
            raise NotFoundError(f"there is no heat map of image {sop_instance_uid}")
        return found

    def normal(self, bank: str, identifier: str) -> bytes:
        """Return a picture of one of a bank's normals. Raises NotFoundError where the bank has none."""
        try:
            found = self._normals.picture(bank, identifier)
        except BankError as error:
            raise NotFoundError(f"there is no picture of a normal: {error}") from error
        if found is None:
            raise NotFoundError(f"bank {bank} has no picture of its normal {identifier[:64]!r}")
        return found

    def heat_maps(self, sop_instance_uids: Collection[str]) -> Collection[str]:
        """Return of which of these images there is a heat map."""
        with reading(self._engine) as conn:
            return heat_maps.among(conn, sop_instance_uids)

    def normals(self, bank: str, identifiers: Collection[str]) -> Collection[str]:
        """Return of which of these normals the bank has a picture."""
        try:
            return self._normals.among(bank, identifiers)
        except BankError:
            return ()

    def sweep(self) -> int:
        """Remove what is of images no longer held, and the longest unused beyond the bound; return how many."""
        kept: list[tuple[float, int, Path]] = []
        gone = 0
        for shelf in sorted(self._folder.glob("[0-9a-f][0-9a-f]")):
            files = [path for path in shelf.iterdir() if path.is_file()]
            with reading(self._engine) as conn:
                held = instances.held_digests(conn, {path.stem for path in files})
            for path in files:
                if path.stem not in held:
                    path.unlink(missing_ok=True)
                    gone += 1
                else:
                    with suppress(OSError):
                        state = path.stat()
                        kept.append((state.st_mtime, state.st_size, path))
        size = sum(one[1] for one in kept)
        for _, of_file, path in sorted(kept):
            if size <= LARGEST_CACHE:
                break
            path.unlink(missing_ok=True)
            size, gone = size - of_file, gone + 1
        return gone

    def close(self) -> None:
        """End the process that draws."""
        self._process.close()

    def _refuse(self, digest: str, reason: str) -> None:
        """Leave an image alone for a while, twice as long each time: it is not tried for every glance at the list."""
        with self._lock:
            before = self._refused.pop(digest, None)
            seconds = FIRST_REFUSAL if before is None else min(2 * before.seconds, LONGEST_REFUSAL)
            self._refused[digest] = _Refused(reason, self._clock() + seconds, seconds)
            while len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)

    def _place(self, digest: str, kind: Kind) -> Path:
        return self._folder / digest[:2] / f"{digest}{_SUFFIX[kind]}"

    @contextmanager
    def _alone(self, place: Path) -> Iterator[None]:
        """Let one at a time draw the same picture."""
        with self._lock:
            lock, waiting = self._drawing.get(place, (threading.Lock(), 0))
            self._drawing[place] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._drawing.pop(place)
                if waiting > 1:
                    self._drawing[place] = (lock, waiting - 1)


def _used(place: Path) -> bytes:
    content = place.read_bytes()
    os.utime(place)
    return content


def _write(place: Path, content: bytes) -> None:
    place.parent.parent.mkdir(mode=0o700, exist_ok=True)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    beside = place.with_suffix(f".{threading.get_ident()}.part")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    beside.replace(place)
