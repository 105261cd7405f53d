"""What dead builds and removals left in the folder of banks: work folders, half-written files, weights of no bank.

Knows the names under which builders work (see `training.embed.work_folder`) and that a running one holds its lock.
"""

from __future__ import annotations

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dicom_node.domain.errors import BankError
from dicom_node.score.bank import WEIGHTS
from dicom_node.score.bank_store import BankStore

RESUMABLE = timedelta(days=7)
"""For so long after its last step a build that ended too early may be started again and go on."""

_OF_PROCESS = re.compile(r"\..+\.(?:writing|removed)-([0-9]+)\Z")
_LOCK = "lock"


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that no bank needs, or that looks like one.

    Attributes
    ----------
    path
        In the folder of banks.
    goes
        Whether it can be removed.
    why
        For people.
    """

    path: Path
    goes: bool
    why: str


def building(root: Path) -> bool:
    """Say whether some process is building a bank in this folder."""
    return any(_is_locked(folder) for folder in root.glob(".*.work"))


def leftovers(root: Path, now: datetime) -> list[Leftover]:
    """Return what dead builds left, by name; nothing of a running one can go.

    Parameters
    ----------
    now
        Timezone-aware; compared with the files' times.
    """
    found = [_work(folder, now) for folder in sorted(root.glob(".*.work"))]
    for path in sorted(root.glob(".*")):
        match = _OF_PROCESS.match(path.name)
        if match:
            alive = Path(f"/proc/{match[1]}").exists()
            why = f"process {match[1]} is at it" if alive else "was left by a process that is gone"
            found.append(Leftover(path, not alive, why))
    return found + _weights(root)


def clear(leftover: Leftover) -> bool:
    """Remove what was left and say whether it is gone; a work folder that a build has taken up again stays."""
    path = leftover.path
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return True
    with _held(path) as free:
        if free:
            shutil.rmtree(path, ignore_errors=True)
    return free


def _work(folder: Path, now: datetime) -> Leftover:
    if _is_locked(folder):
        return Leftover(folder, goes=False, why="a build is running in it")
    last = max((path.stat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)
    age = now - datetime.fromtimestamp(last, now.tzinfo)
    if age < RESUMABLE:
        return Leftover(folder, goes=False, why="a build that ended early goes on from it when started again")
    return Leftover(folder, goes=True, why=f"no build has touched it for {age.days} days")


def _weights(root: Path) -> list[Leftover]:
    """Return the weights files that no bank names; all of them stay while that cannot be told."""
    files = sorted(path for path in (root / WEIGHTS).glob("*") if path.is_file())
    store, needed, unread = BankStore(root), set(), ""
    for name in store.names() if files else ():
        try:
            needed.add(store.manifest(name).backbone.weights_sha256)
        except BankError:
            unread = f"bank {name} cannot be read and may need it"
    busy = "a build is running and may need it" if building(root) else ""
    orphans = [path for path in files if path.name not in needed]
    return [Leftover(path, not (unread or busy), unread or busy or "no bank needs it") for path in orphans]


def _is_locked(folder: Path) -> bool:
    with _held(folder) as free:
        return not free


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Hold a work folder's lock, and tell whether it was free; one without a lock is."""
    try:
        lock = (folder / _LOCK).open("r+")
    except FileNotFoundError:
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
