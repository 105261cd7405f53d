"""A good peer in a process of its own: C-ECHO and C-STORE again and again, and how long each took.

``python -m tests.hostile.prober PORT CALLED PREFIX OUT`` writes a line ``echo|store SECONDS`` for each, with
``failed`` before the seconds of one that was not answered, until it is terminated. One that then waits for long
already counts as failed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.hostile import wire

ROOT = Path(__file__).resolve().parents[2]
PAUSE = 0.05
STORE_EVERY = 5
GIVE_UP = 30.0
LONG = 5.0


@dataclass
class Service:
    """What a good peer saw."""

    answered: dict[str, list[float]] = field(default_factory=lambda: {"echo": [], "store": []})
    failed: dict[str, list[float]] = field(default_factory=lambda: {"echo": [], "store": []})

    def worst(self, what: str) -> float:
        """Return the longest time to an answer, or to giving up."""
        return max(self.answered[what] + self.failed[what], default=float("nan"))

    def within(self, what: str, seconds: float) -> tuple[int, int]:
        """Return how many were answered in that time, and of how many."""
        answered = self.answered[what]
        return sum(s <= seconds for s in answered), len(answered) + len(self.failed[what])


@contextmanager
def probing(port: int, called: str, prefix: str, out: Path) -> Iterator[Service]:
    """Probe while the block runs; the Service is filled when it ends."""
    service = Service()
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.hostile.prober", str(port), called, prefix, str(out)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        while not (out.exists() and out.stat().st_size):
            time.sleep(0.02)
        yield service
    finally:
        process.terminate()
        process.wait(60)
        for line in out.read_text().splitlines():
            what, *failed, seconds = line.split()
            (service.failed if failed else service.answered)[what].append(float(seconds))


def _probe(port: int, called: str, prefix: str, out: Path) -> None:
    address = ("127.0.0.1", port)
    what, begin = "echo", time.monotonic()

    def stop(*_: object) -> None:
        if time.monotonic() - begin > LONG:
            lines.write(f"{what} failed {time.monotonic() - begin:.4f}\n")
        sys.exit(0)

    with out.open("a", buffering=1) as lines:
        signal.signal(signal.SIGTERM, stop)
        for number in count(1):
            what = "store" if number % STORE_EVERY == 2 else "echo"
            begin = time.monotonic()
            try:
                if what == "store":
                    taken = wire.store_once(address, f"{prefix}.{number}", called, GIVE_UP)
                else:
                    taken = wire.echo_once(address, called, GIVE_UP)
                lines.write(f"{what} {taken:.4f}\n")
            except OSError:
                lines.write(f"{what} failed {time.monotonic() - begin:.4f}\n")
            time.sleep(PAUSE)


if __name__ == "__main__":
    _probe(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
