"""Keeps what peers said of procedure steps, the patient in it: files of the owner alone, in the folder ``steps``.

That is the data sets of creators, the matching keys of filtered subscriptions, and what requests to cancel say. Whoever
commits a row has put its file before; a file without a row was never acknowledged.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from dicom_node.domain import private
from dicom_node.domain.errors import StoreError
from dicom_node.store.files import FileStore, told

FOLDER = "steps"


def path(files: FileStore, digest: str) -> Path:
    """Return where the data set of that digest lies."""
    return files.root / FOLDER / f"{digest}.dcm"


def placed(files: FileStore, before: datetime) -> set[str]:
    """Return the digests of the data sets that were put there before a moment."""
    folder, old = files.root / FOLDER, set()
    with told(f"{folder} cannot be read"):
        for file in folder.glob("*.dcm"):
            try:
                if file.stat().st_mtime < before.timestamp():
                    old.add(file.stem)
            except FileNotFoundError:  # between two looks
                continue
    return old


def put(files: FileStore, content: bytes) -> str:
    """Keep a data set durably and return the SHA-256 (hex) of its bytes.

    Raises
    ------
    OutOfResourcesError, StoreError
        As `FileStore.adopt`.
    """
    digest = hashlib.sha256(content).hexdigest()
    folder = files.root / FOLDER
    staged = files.incoming / f"step-{uuid4()}"
    files.require_space(len(content))
    with told("the data set of a procedure step cannot be kept"):
        files.make_folder(folder)
        try:
            with open(staged, "xb", opener=private.opener) as file:
                file.write(content)
            files.sync(staged)
            staged.replace(path(files, digest))
            files.sync(folder)
        finally:
            staged.unlink(missing_ok=True)
    return digest


def read(files: FileStore, digest: str) -> bytes:
    """Return a data set's bytes, checked against their digest.

    Raises
    ------
    StoreError
        If the file is missing or damaged.
    """
    with told("the data set of a procedure step cannot be read"):
        content = path(files, digest).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoreError(f"the data set {digest} of a procedure step is damaged; restore it from a backup")
    return content


def remove(files: FileStore, digest: str) -> None:
    """Remove a data set for good; nothing happens where there is none.

    Raises
    ------
    StoreError
        If the file system fails.
    """
    with told("the data set of a procedure step cannot be removed"):
        if path(files, digest).is_file():
            path(files, digest).unlink(missing_ok=True)
            files.sync(files.root / FOLDER)
