"""The file that a data set is written to while it arrives. Owns that file until ingest takes it.

pynetdicom can chunk to disk itself (`STORE_RECV_CHUNKED_DATASET`), but only into the process's temporary
folder, which need not be on the store's file system, and a full disk there ends its reader thread without
an answer. Here the data set's buffer, which pynetdicom lets one replace per message, is a file: bytes go to
the store's own `incoming` folder as they come, nothing is held in memory, and whatever goes wrong is kept
as the fault that the C-STORE handler answers with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom.dsutils import create_file_meta

from dicom_node.domain import private
from dicom_node.domain.errors import CannotUnderstandError, NodeError, OutOfResourcesError

_BUFFER = 256 * 1024
_ADMIT_EVERY = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    """What a C-STORE command said, checked."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class StagedDataSet(BytesIO):
    """Write-only buffer of one message's data set; becomes a Part 10 file at the first fragment.

    Parameters
    ----------
    path
        Where the file is made; it must not exist.
    check
        Returns what the command said; raises NodeError if this data set must not be taken.
    admit
        Raises OutOfResourcesError where the disk is too full; asked before the first byte and again every
        16 MiB.
    source_ae_title
        Title of the sender, kept in the file meta.
    largest
        Bytes that a data set may have; a larger one is refused.
    """

    def __init__(
        self,
        path: Path,
        check: Callable[[], Command],
        admit: Callable[[], None],
        source_ae_title: str,
        largest: int,
    ) -> None:
        super().__init__()
        self._path = path
        self._check = check
        self._admit = admit
        self._source = source_ae_title
        self._largest = largest
        self._file: BinaryIO | None = None
        self._mine = False
        self._next_admit = 0
        self._command: Command | None = None
        self._fault: NodeError | None = None
        self._size = 0
        self._dropped = 0
        self._offset = 0

    @property
    def endless(self) -> bool:
        """Whether more was dropped after a fault than a data set may have."""
        return self._dropped > self._largest

    def write(self, fragment: Any) -> int:
        """Append a fragment. Never raises: after a fault the rest of the data set is read and dropped."""
        if self._fault is not None:
            self._dropped += len(fragment)
        else:
            try:
                self._append(fragment)
            except NodeError as error:
                self._fail(error)
            except OSError as error:
                self._fail(OutOfResourcesError(f"the data set could not be written: {error.strerror or error}"))
        return len(fragment)

    def _append(self, fragment: bytes) -> None:
        if self._size + len(fragment) > self._largest:
            megabytes = self._largest / 1e6
            raise OutOfResourcesError(f"larger than receive.maximum_dataset_megabytes, {megabytes:g}")
        if self._size >= self._next_admit:
            self._admit()
            self._next_admit += _ADMIT_EVERY
        if self._file is None:
            self._command = self._check()
            header = file_header(self._command, self._source)
            self._file = open(self._path, "xb", buffering=_BUFFER, opener=private.opener)  # noqa: SIM115 - Path.open takes no opener; closed by finish or discard
            self._mine = True
            self._file.write(header)
            self._offset = len(header)
        self._file.write(fragment)
        self._size += len(fragment)

    def _fail(self, error: NodeError) -> None:
        self._fault = error
        self.discard()

    def finish(self) -> tuple[Command, Path, int]:
        """Close the file and return the command, the file, and where the data set begins in it.

        The file is not synced to disk. The caller owns it after `handed_over`, and until then `discard`
        removes it.

        Raises
        ------
        NodeError
            The fault met on the way.
        CannotUnderstandError
            If the message had no data set.
        """
        if self._fault is None and self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._fail(OutOfResourcesError(f"the data set could not be written: {error.strerror or error}"))
        if self._fault is not None:
            raise self._fault
        if self._command is None:
            raise CannotUnderstandError("the C-STORE command came without a data set; send both")
        return self._command, self._path, self._offset

    def handed_over(self) -> None:
        """Note that the file belongs to someone else now."""
        self._mine = False

    def discard(self) -> None:
        """Close and remove the file, if it is still ours."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:  # the bytes that could not be flushed are not wanted
                self._file = None
        if self._mine:
            self._mine = False
            self._path.unlink(missing_ok=True)


def file_header(command: Command, source_ae_title: str) -> bytes:
    """Return preamble, prefix and file meta information (PS3.10 section 7.1) for a data set."""
    meta = create_file_meta(
        sop_class_uid=UID(command.sop_class_uid),
        sop_instance_uid=UID(command.sop_instance_uid),
        transfer_syntax=UID(command.transfer_syntax_uid),
    )
    meta.SourceApplicationEntityTitle = source_ae_title
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = False
    buffer.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(buffer, meta)
    return bytes(buffer.getvalue())
