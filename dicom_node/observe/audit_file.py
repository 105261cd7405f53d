"""The audit trail's file: JSON lines in numbered segments, appended to by any number of processes at once.

Owns the order "lock, write one line, sync, unlock", the rotation by size, and the position up to which lines were sent
on. Knows nothing of what a line means. Files have mode 0600, the folder 0700.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_node.domain import private


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two lines: number of the segment, and offset in bytes."""

    segment: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Up to where lines were sent on, and what last kept them from being sent ("" if nothing)."""

    position: Position
    fault: str = ""
    since: str = ""


class AuditFile:
    """The trail ``NAME.jsonl``; full ones become ``NAME.000001.jsonl`` and so on, counted up for ever.

    Parameters
    ----------
    path
        Of the segment that is written to.
    largest
        Size in bytes that a segment does not exceed (a single longer line does).
    keep
        How many full segments are kept.
    forwarding
        Whether lines are sent on: what was not sent yet is then kept in any case.
    """

    def __init__(
        self,
        path: Path,
        largest: int,
        keep: int,
        *,
        forwarding: bool = False,
        fsync: Callable[[int], None] = os.fsync,
    ) -> None:
        self.path = path
        self._largest = largest
        self._keep = keep
        self._forwarding = forwarding
        self._fsync = fsync

    def append(self, line: bytes) -> None:
        """Add a line (without its end) durably: as a whole or not at all.

        Raises
        ------
        OSError
            If it cannot be written or synced.
        """
        with self._locked("lock"):
            size = self.path.stat().st_size if self.path.exists() else 0
            if size and size + len(line) + 1 > self._largest:
                self._rotate()
            descriptor = self._open()
            try:
                size = os.fstat(descriptor).st_size
                # A line that a loss of power cut off must not swallow this one.
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                self._write(descriptor, (b"\n" if torn else b"") + line + b"\n", size)
            finally:
                os.close(descriptor)

    def probe(self) -> None:
        """Open the segment that is written to and sync it, without adding a line.

        Raises
        ------
        OSError
            If a line could not be added.
        """
        with self._locked("lock"):
            descriptor = self._open()
            try:
                self._fsync(descriptor)
            finally:
                os.close(descriptor)

    def _write(self, descriptor: int, content: bytes, size: int) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
            self._fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)  # the disk was full in the middle of it
            raise

    def segments(self) -> list[tuple[int, Path]]:
        """Return number and path of every segment, oldest first; the last is the one that is written to."""
        stem, found = self.path.stem, []
        if self.path.parent.is_dir():
            for path in self.path.parent.glob(f"{stem}.*.jsonl"):
                number = path.name.removeprefix(f"{stem}.").removesuffix(".jsonl")
                if number.isdigit():
                    found.append((int(number), path))
        found.sort()
        return [*found, (found[-1][0] + 1 if found else 1, self.path)]

    def lines(self, start: Position | None = None) -> Iterator[tuple[bytes, Position]]:
        """Yield each whole line from a position on, and the position behind it."""
        begin = start or Position()
        for number, _ in self.segments():
            if number < begin.segment:
                continue
            try:
                with self._segment(number) as file:
                    # A smaller file than the position says was replaced by someone: everything in it is new.
                    if number == begin.segment and begin.offset <= os.fstat(file.fileno()).st_size:
                        file.seek(begin.offset)
                    while (line := file.readline()).endswith(b"\n"):
                        yield line[:-1], Position(number, file.tell())
            except FileNotFoundError:
                continue  # nothing was written yet, or it has just been rotated away

    def _segment(self, number: int) -> BinaryIO:
        """Open a segment, which may become a full one at any moment. Raises FileNotFoundError where it is gone."""
        full = self._beside(f"{number:06d}.jsonl")
        with suppress(FileNotFoundError):
            return full.open("rb")
        file = self.path.open("rb")
        if self.segments()[-1][0] == number:
            return file
        file.close()  # that is a later one already
        return full.open("rb")

    def forwarded(self) -> Forwarded:
        """Return up to where lines were sent on."""
        try:
            told = json.loads(self._beside("forwarded.json").read_bytes())
            return Forwarded(Position(**told["position"]), str(told["fault"]), str(told["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Forwarded(Position())

    def note_forwarded(self, forwarded: Forwarded) -> None:
        """Keep up to where lines were sent on.

        Raises
        ------
        OSError
            If it cannot be written; lines are then sent again some day.
        """
        part = self._beside("forwarded.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, private.FILE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(asdict(forwarded)).encode())
        part.replace(self._beside("forwarded.json"))

    @contextmanager
    def sole_forwarder(self) -> Iterator[bool]:
        """Yield whether the caller alone, of all processes, may send lines on inside the block."""
        try:
            with self._locked("forwarder", wait=False):
                yield True
        except BlockingIOError:
            yield False

    def _beside(self, what: str) -> Path:
        return self.path.with_name(f"{self.path.stem}.{what}")

    def _open(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, private.FILE)
        os.fchmod(descriptor, private.FILE)
        return descriptor

    @contextmanager
    def _locked(self, what: str, *, wait: bool = True) -> Iterator[None]:
        private.make_folder(self.path.parent)
        descriptor = os.open(self._beside(what), os.O_RDWR | os.O_CREAT, private.FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def _rotate(self) -> None:
        *full, (number, _) = self.segments()
        self.path.rename(self._beside(f"{number:06d}.jsonl"))
        full.append((number, self._beside(f"{number:06d}.jsonl")))
        needed = self.forwarded().position.segment if self._forwarding else number + 1
        for old, path in full[: -self._keep]:
            if old < needed:
                path.unlink(missing_ok=True)
