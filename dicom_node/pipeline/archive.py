"""The files of a backup, in a folder or in one tar file, with a manifest of their hashes. Knows no node.

Written under a hidden name beside the target, synced, and renamed last: what has the target's name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from dicom_node.domain.errors import NotFoundError, StoreError
from dicom_node.score.durable import sync_folder
from dicom_node.store.files import told

MANIFEST = "manifest.json"
FORMAT = 1
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*\Z")
_BLOCK = 1024 * 1024


@dataclass(slots=True)
class Writer:
    """An archive that is being written; `files` fills with the hash and size of each."""

    folder: Path | None
    tar: tarfile.TarFile | None
    files: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, name: str, path: Path) -> None:
        """Add a file; FileNotFoundError if it is gone meanwhile."""
        with path.open("rb") as source:
            self._add(name, source, os.fstat(source.fileno()).st_size)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file by its content."""
        self._add(name, BytesIO(content), len(content))

    def _add(self, name: str, source: IO[bytes], size: int) -> None:
        hashing = _Hashing(source)
        if self.tar is not None:
            member = tarfile.TarInfo(name)
            member.size, member.mode = size, 0o600
            self.tar.addfile(member, hashing)
        elif self.folder is not None:
            target = self.folder / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                shutil.copyfileobj(hashing, file, _BLOCK)
                file.flush()
                os.fsync(file.fileno())
        self.files[name] = {"sha256": hashing.digest, "size": size}


@contextmanager
def writing_archive(target: Path) -> Iterator[Writer]:
    """Open an archive for writing; it appears under its name at the end of the block, and only if that ends well.

    Parameters
    ----------
    target
        A file if its name ends in ``.tar``, else a folder; must not exist.

    Raises
    ------
    StoreError, OutOfResourcesError
        If it exists or cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} exists already; name a new one")
    staged = target.absolute().with_name(f".{target.name}.writing-{os.getpid()}")
    with told(f"the backup {target} cannot be written"):
        staged.parent.mkdir(parents=True, exist_ok=True)
        try:
            if target.suffix == ".tar":
                descriptor = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    with tarfile.open(fileobj=file, mode="w") as tar:
                        yield Writer(None, tar)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                staged.mkdir(mode=0o700)
                yield Writer(staged, None)
                for folder in [staged, *(path for path in staged.rglob("*") if path.is_dir())]:
                    sync_folder(folder)
            staged.rename(target)
            sync_folder(staged.parent)
        finally:
            if staged.is_dir():
                shutil.rmtree(staged)
            else:
                staged.unlink(missing_ok=True)


def members(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the name and the open bytes of every file of an archive, one after the other.

    Raises
    ------
    NotFoundError
        If there is no such archive.
    StoreError
        If it cannot be read, or holds anything but plain files under plain names.
    """
    if not source.exists():
        raise NotFoundError(f"there is no backup {source}")
    try:
        if source.is_dir():
            for path in sorted(source.rglob("*")):
                if path.is_symlink() or not (path.is_dir() or path.is_file()):
                    raise StoreError(f"{path.name} in {source} is no plain file; a backup holds nothing else")
                if path.is_file():
                    with path.open("rb") as file:
                        yield _plain(path.relative_to(source).as_posix()), file
            return
        with tarfile.open(source, "r:") as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise StoreError(
                        f"{member.name!r} in {source} is no plain file; a backup holds nothing else"
                    )
                yield _plain(member.name), content
    except (OSError, tarfile.TarError) as error:
        raise StoreError(f"the backup {source} cannot be read: {error}") from error


def verify(source: Path) -> Mapping[str, Any]:
    """Compare every file of an archive with the manifest's hashes and return the manifest.

    Raises
    ------
    NotFoundError, StoreError
        As `members`, and if a file is missing, is there unasked, or is not what its hash says: all are named.
    """
    seen: dict[str, str] = {}
    manifest: dict[str, Any] | None = None
    for name, content in members(source):
        if name == MANIFEST:
            try:
                manifest = json.loads(content.read())
            except ValueError as error:
                raise StoreError(f"the manifest of {source} cannot be read: {error}") from error
            continue
        hashing = _Hashing(content)
        while hashing.read(_BLOCK):
            pass
        seen[name] = hashing.digest
    if manifest is None or "files" not in manifest:
        raise StoreError(f"{source} has no {MANIFEST}: it is no backup of this program, or was not finished")
    if manifest.get("format") != FORMAT:
        raise StoreError(
            f"{source} has format {manifest.get('format')}; this version reads {FORMAT}. Use a newer one"
        )
    wanted = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    wrong = [f"{name} is missing" for name in sorted(wanted.keys() - seen.keys())]
    wrong += [f"{name} is not in the manifest" for name in sorted(seen.keys() - wanted.keys())]
    wrong += [
        f"{name} is damaged" for name in sorted(wanted.keys() & seen.keys()) if wanted[name] != seen[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise StoreError(
            f"the backup {source} is not whole: {'; '.join(wrong[:5])}{more}; nothing was restored"
        )
    return manifest


class _Hashing:
    """Reads from a file and hashes what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self._source.read(size)
        self._hash.update(block)
        return block

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _plain(name: str) -> str:
    if not all(_PART.match(part) for part in name.split("/")):
        raise StoreError(f"a file of the backup is called {name!r}; a backup holds only plain names")
    return name
