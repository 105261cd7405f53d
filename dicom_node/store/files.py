"""Keeps bytes: received instances and reports, each in a file named by its SHA-256.

Owns the order "write, sync the file, move it into place, sync the folder" and may not know the database: a file
without a row is harmless, and whoever commits the row calls `adopt` first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from dicom_node.domain import private
from dicom_node.domain.errors import OutOfResourcesError, StoreError

_EXHAUSTED = {errno.ENOSPC, errno.EDQUOT, errno.ENFILE, errno.EMFILE}
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
_FIRST_ELEMENT = 132  # where File Meta Information begins: after preamble and "DICM" (PS3.10 section 7.1)


class FileStore:
    """The folder ``[store] root``: ``incoming/`` (staging), ``instances/`` and ``reports/``.

    Several processes may use one root at the same time.

    Parameters
    ----------
    root
        Made with mode 0700 where missing.
    reserve_bytes
        Free space below which nothing more is taken in.
    fsync
        Makes what a file descriptor stands for durable.
    link
        Gives a file a second name, failing where that name is taken.

    Attributes
    ----------
    incoming
        Folder in which received files are staged; on the same file system as the store proper.

    Raises
    ------
    OutOfResourcesError, StoreError
        If the folders cannot be made.
    """

    def __init__(
        self,
        root: Path,
        reserve_bytes: int,
        *,
        fsync: Callable[[int], None] = os.fsync,
        link: Callable[[Path, Path], None] = os.link,
    ) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._instances = root / "instances"
        self._reports = root / "reports"
        self._reserve = reserve_bytes
        self._fsync = fsync
        self._link = link
        self._durable_folders: set[Path] = set()
        with told(f"the store's folders under {root} cannot be made"):
            for folder in (self.incoming, self._instances, self._reports):
                self.make_folder(folder)

    def require_space(self, nbytes: int = 0) -> None:
        """Check that `nbytes` more would leave the reserve untouched.

        Raises
        ------
        OutOfResourcesError
            If they would not; the message says how much is free.
        """
        with told(f"the free space of {self.root} cannot be told"):
            free = shutil.disk_usage(self.root).free
        if free - nbytes < self._reserve:
            raise OutOfResourcesError(
                f"the store has {free} bytes free and {nbytes} more are wanted; "
                f"{self._reserve} must stay free (store.reserve_megabytes)"
            )

    def digest(self, path: Path, offset: int) -> tuple[str, int]:
        """Return SHA-256 (hex) and size in bytes of a file from `offset` to its end, read as a stream.

        Raises
        ------
        StoreError
            If the file cannot be read or ends before `offset`.
        """
        with told(f"{path.name} cannot be read"), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - offset
            if size < 0:
                raise StoreError(
                    f"{path.name} ends {-size} bytes before its data set; it should begin at {offset}"
                )
            file.seek(offset)
            return hashlib.file_digest(file, "sha256").hexdigest(), size

    def instance_path(self, digest: str) -> Path:
        """Return where the instance whose data set has this SHA-256 is, or would be, kept."""
        return self._instances / digest[:2] / f"{digest}.dcm"

    def require_instance(self, digest: str) -> None:
        """Check that an instance's file is there, for whoever is about to commit its row.

        Raises
        ------
        OutOfResourcesError
            If it was removed at this very moment; the sender may send it again.
        """
        if not self.instance_path(digest).exists():
            raise OutOfResourcesError(f"the file of instance {digest} was just removed; send the image again")

    def check_instance(self, digest: str) -> None:
        """Compare a kept instance with its digest, so that nothing else than what was received is looked at.

        Raises
        ------
        StoreError
            If the file is missing, unreadable, or not what its name says.
        """
        with told(f"the file of instance {digest} cannot be read"):
            seen = self.dataset_digest(self.instance_path(digest))
        if seen != digest:
            raise StoreError(
                f"the file of instance {digest} is damaged: its data set has SHA-256 {seen or 'none'}; "
                "restore it from a backup, then retry"
            )

    def adopt(self, staged: Path, digest: str) -> Path:
        """Take a staged Part 10 file into the store; on return it survives a loss of power.

        May be called again with the same bytes, by any process and after any crash. A good file already there
        stays untouched (and is synced: whoever wrote it may not have come that far); a damaged one is replaced.

        Parameters
        ----------
        staged
            The file, in `incoming`. It is gone on return.
        digest
            What `digest` returned for its data set.

        Returns
        -------
        Path
            `instance_path` of the digest.

        Raises
        ------
        OutOfResourcesError
            If the disk or a quota is full.
        StoreError
            If the file system fails in another way, or there is neither a staged nor a good kept file. A staged
            file stays where it is, and a second call can succeed.
        """
        target = self.instance_path(digest)
        with told(f"instance {digest} cannot be kept"):
            self._place(staged, target, lambda: self.dataset_digest(target) == digest)
        return target

    def put_report(self, content: bytes) -> str:
        """Keep a report durably and return the SHA-256 (hex) of its bytes, under which it can be read again.

        Raises
        ------
        OutOfResourcesError, StoreError
            As `adopt`.
        """
        digest = hashlib.sha256(content).hexdigest()
        staged = self.incoming / f"report-{uuid4()}"
        with told(f"report {digest} cannot be kept"):
            try:
                with open(staged, "xb", opener=private.opener) as file:
                    file.write(content)
                target = self.report_path(digest)
                self._place(staged, target, lambda: self.digest(target, 0)[0] == digest)
            finally:
                staged.unlink(missing_ok=True)
        return digest

    def read_report(self, digest: str) -> bytes:
        """Return a report's bytes, checked against their digest.

        Raises
        ------
        StoreError
            If the file is missing, unreadable, or not what its name says.
        """
        with told(f"report {digest} cannot be read"):
            content = self.report_path(digest).read_bytes()
        seen = hashlib.sha256(content).hexdigest()
        if seen != digest:
            raise StoreError(
                f"report {digest} is damaged: its bytes have SHA-256 {seen}; restore it from a backup"
            )
        return content

    def sweep_incoming(self, before: datetime) -> int:
        """Remove staged files last written before a moment; return how many."""
        removed = 0
        with told("stale staged files cannot be removed"):
            for path in list(self.incoming.iterdir()):
                try:
                    if path.is_file() and path.stat().st_mtime < before.timestamp():
                        path.unlink()
                        removed += 1
                except FileNotFoundError:
                    continue
        return removed

    def report_path(self, digest: str) -> Path:
        """Return where the report whose bytes have this SHA-256 is, or would be, kept."""
        return self._reports / digest[:2] / f"{digest}.dcm"

    def _place(self, staged: Path, target: Path, is_good: Callable[[], bool]) -> None:
        self.make_folder(target.parent)
        if target.exists() and is_good():
            self.sync(target)
        else:
            staged.chmod(stat.S_IRUSR | stat.S_IWUSR)
            self.sync(staged)
            self._move(staged, target)
        self.sync(target.parent)
        staged.unlink(missing_ok=True)

    def _move(self, staged: Path, target: Path) -> None:
        if target.exists():  # and is damaged
            staged.replace(target)
            return
        try:
            self._link(staged, target)
        except FileExistsError:  # just now, by another process, of the same bytes
            self.sync(target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:  # some network shares
                raise
            staged.replace(target)

    def dataset_digest(self, path: Path) -> str:
        """Digest the data set of a kept file; "" where its File Meta Information cannot be followed."""
        offset = self.dataset_offset(path)
        return "" if offset is None else self.digest(path, offset)[0]

    def dataset_offset(self, path: Path) -> int | None:
        """Return where the data set of a Part 10 file begins; None where its File Meta cannot be followed."""
        with path.open("rb") as file:
            start = file.read(_FIRST_ELEMENT + 12)
        # (0002,0000) UL: tag 4, VR 2, length 2, value 4 bytes, always little endian
        if start[128:140] != b"DICM\x02\x00\x00\x00UL\x04\x00" or len(start) < _FIRST_ELEMENT + 12:
            return None
        offset = _FIRST_ELEMENT + 12 + int.from_bytes(start[-4:], "little")
        return offset if offset <= path.stat().st_size else None

    def make_folder(self, folder: Path) -> None:
        """Make a folder, and its parents, such that their entries are durable before anything is put inside."""
        if folder in self._durable_folders and folder.is_dir():
            return
        if not folder.parent.is_dir():
            self.make_folder(folder.parent)
        folder.mkdir(mode=stat.S_IRWXU, exist_ok=True)
        # Synced even where it was there already: whoever made it may not have come that far.
        self.sync(folder.parent)
        self._durable_folders.add(folder)

    def sync(self, path: Path) -> None:
        """Wait until the disk has a file's bytes or a folder's entries."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self._fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn the operating system's errors into ours."""
    try:
        yield
    except OSError as error:
        kind = OutOfResourcesError if error.errno in _EXHAUSTED else StoreError
        raise kind(f"{what}: {error.strerror or error}") from error
