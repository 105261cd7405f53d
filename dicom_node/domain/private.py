"""Files and folders that nobody but this node's user may read, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def opener(path: str, flags: int) -> int:
    """Open a file, made private where it is made; for the `opener` of `open`."""
    return os.open(path, flags, FILE)


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, private."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=FOLDER, exist_ok=True)


def close_to_others(path: Path) -> None:
    """Take everybody else's rights on a file away, as far as it is ours."""
    if open_to_others(path):
        with contextlib.suppress(OSError):  # another user's; `dicom-node check` tells
            path.chmod(FILE)


def open_to_others(path: Path) -> bool:
    """Return whether anybody but the owner has a right on `path`; False if it is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except OSError:
        return False
