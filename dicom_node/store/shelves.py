"""Walks the store's folders and says what lies there: what has its place, and what should not be there.

Reads names and modes only, a folder at a time; knows no rows. Files that are being taken in may come and go.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from dicom_node.store.faults import Code, Fault
from dicom_node.store.files import FileStore, told

PREFIXES = tuple(f"{number:02x}" for number in range(256))

_AREAS = {"incoming", "instances", "reports", "steps", "quarantine"}
_OF_OTHERS = {"lost+found", "audit", "pictures"}  # the last is a cache that may go at any time
_NAME = re.compile(r"([0-9a-f]{64})\.dcm\Z")
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


@dataclass(slots=True)
class Shelf:
    """One folder of files named by digest: when each was put there, and what is wrong with names and modes."""

    placed: dict[str, float] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def strangers(files: FileStore, stale_before: datetime) -> Iterator[Fault]:
    """Yield what is wrong beside the shelves: in the root, in ``incoming``, and among the shelves' own names."""
    root = files.root
    yield from _mode(root, root, root.lstat().st_mode, _FOLDER_MODE)
    for entry in _entries(root):
        if entry.name in _OF_OTHERS:
            continue
        if entry.is_symlink():
            yield _link(root, entry)
        elif entry.name not in _AREAS or not entry.is_dir():
            yield _foreign(root, entry)
        else:
            yield from _mode(root, Path(entry.path), entry.stat().st_mode, _FOLDER_MODE)
    for entry in _entries(root / "incoming"):
        try:
            if entry.is_symlink():
                yield _link(root, entry)
            elif not entry.is_file():
                yield _foreign(root, entry)
            elif entry.stat().st_mtime < stale_before.timestamp():
                yield Fault(Code.STALE, f"incoming/{entry.name}", "left by a transfer that was cut off")
        except FileNotFoundError:
            continue
    for area in ("instances", "reports"):
        for entry in _entries(root / area):
            if entry.is_symlink():
                yield _link(root, entry)
            elif entry.name not in PREFIXES or not entry.is_dir():
                yield _foreign(root, entry)


def shelf(files: FileStore, area: str, prefix: str = "") -> Shelf:
    """Return what lies in one folder of ``instances`` or ``reports``, or in ``steps``, which has no folders.

    An empty shelf where there is no folder.
    """
    root, folder = files.root, files.root / area / prefix
    seen = Shelf()
    if folder.is_symlink() or not folder.is_dir():
        return seen
    if prefix:  # the mode of the area itself is looked at by `strangers`
        seen.faults += _mode(root, folder, folder.lstat().st_mode, _FOLDER_MODE)
    for entry in _entries(folder):
        try:
            named = _NAME.match(entry.name)
            if entry.is_symlink():
                seen.faults.append(_link(root, entry))
            elif named is None or not named[1].startswith(prefix) or not entry.is_file():
                seen.faults.append(_foreign(root, entry))
            else:
                state = entry.stat()
                seen.faults += _mode(root, Path(entry.path), state.st_mode, _FILE_MODE)
                seen.placed[named[1]] = state.st_ctime
        except FileNotFoundError:
            continue
    return seen


def set_aside(files: FileStore, path: Path) -> Path:
    """Move a file into ``quarantine``, durably; return where it is now.

    Raises
    ------
    StoreError
        If it cannot be moved.
    """
    folder = files.root / "quarantine"
    with told(f"{path.name} cannot be set aside"):
        files.make_folder(folder)
        target, number = folder / path.name, 1
        while target.exists():
            target, number = folder / f"{path.stem}-{number}{path.suffix}", number + 1
        path.rename(target)
        files.sync(folder)
        files.sync(path.parent)
    return target


def make_private(files: FileStore, what: str) -> None:
    """Give a file or folder of the store back the mode that lets only its owner in.

    Raises
    ------
    StoreError
        If that is not allowed.
    """
    path = files.root / what
    with told(f"the mode of {what} cannot be changed"):
        path.chmod(_FOLDER_MODE if stat.S_ISDIR(path.lstat().st_mode) else _FILE_MODE, follow_symlinks=True)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with told(f"{folder} cannot be read"):
        if not folder.is_dir():
            return []
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)


def _mode(root: Path, path: Path, mode: int, right: int) -> list[Fault]:
    seen = stat.S_IMODE(mode)
    if seen == right:
        return []
    return [Fault(Code.WRONG_MODE, str(path.relative_to(root)), f"mode {seen:04o}; {right:04o} would be right")]


def _link(root: Path, entry: os.DirEntry[str]) -> Fault:
    where = str(Path(entry.path).relative_to(root))
    return Fault(Code.LINK, where, "a symbolic link; the store makes none. Look where it leads, and remove it")


def _foreign(root: Path, entry: os.DirEntry[str]) -> Fault:
    where = str(Path(entry.path).relative_to(root))
    return Fault(Code.FOREIGN, where, "not made by the store. Move it elsewhere")
