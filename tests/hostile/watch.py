"""What a process holds, as the kernel tells it: memory, threads, file descriptors. Children are counted in."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SAMPLE = 0.05


def _family(pid: int) -> list[int]:
    found = [pid]
    for process in found:
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            try:
                found += [int(child) for child in children.read_text().split()]
            except OSError:  # ended meanwhile
                continue
    return found


def resident(pid: int) -> float:
    """Return resident memory in MB, of the process and its children."""
    total = 0
    for process in _family(pid):
        try:
            pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * 4096
    return total / 1e6


def threads(pid: int) -> int:
    """Return how many threads the process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def sockets(pid: int) -> int:
    """Return how many sockets the process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += entry.readlink().as_posix().startswith("socket:")
        except OSError:  # closed meanwhile
            continue
    return found


@dataclass
class Peak:
    """The most memory that was seen, in MB."""

    megabytes: float = 0.0


@contextmanager
def peak_memory(pid: int) -> Iterator[Peak]:
    """Sample memory while the block runs."""
    peak, done = Peak(resident(pid)), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE):
            peak.megabytes = max(peak.megabytes, resident(pid))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        done.set()
        sampler.join()


def soon(holds: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Return whether it holds before the deadline."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
