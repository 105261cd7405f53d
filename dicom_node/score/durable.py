"""Writing that survives a power cut. Knows files and folders only."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the folder's entries."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced_parts(path: Path, parts: Iterable[bytes]) -> None:
    """Write a file out of parts, one after another, and wait until the disk has it."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def write_folder(folder: Path, contents: Mapping[str, bytes | Path]) -> None:
    """Write a folder of files beside its place, sync it, and rename it there: it exists whole or not at all.

    What a killed writer of the same folder left is removed first.

    Parameters
    ----------
    folder
        Must not exist.
    contents
        By file name, in the order of writing; a path is a file of the same file system, and is moved.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = folder.with_name(f".{folder.name}.writing-{os.getpid()}")
    for left in folder.parent.glob(f".{folder.name}.writing-*"):
        gone = not Path(f"/proc/{left.name.rpartition('-')[2]}").exists()
        if gone or left == staging:
            shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    try:
        for file, content in contents.items():
            if isinstance(content, Path):
                content.rename(staging / file)
            else:
                write_synced(staging / file, content)
        sync_folder(staging)
        staging.rename(folder)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_folder(folder.parent)
