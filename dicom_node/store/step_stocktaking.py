"""Holds the files of procedure steps and the rows that need them against each other; see `stocktaking`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime

from dicom_node.store import step_files, step_needs
from dicom_node.store.faults import Code, Fault
from dicom_node.store.files import FileStore, told
from dicom_node.store.shelves import Shelf, shelf
from dicom_node.store.stocktaking import Opened


def step_faults(opened: Opened, files: FileStore, grown_up: datetime) -> Iterator[Fault]:
    """Yield every fault of what peers said of procedure steps: each file is read, each row compared.

    Parameters
    ----------
    opened, grown_up
        As for `stocktaking.image_faults`.
    """
    here = shelf(files, step_files.FOLDER)
    yield from here.faults
    needed = _needed(opened)
    for digest in sorted(needed | here.placed.keys()):
        fault = _fault(files, digest, here, grown_up, needed=digest in needed)
        if fault is not None:  # looked at once more: a step may have come or gone meanwhile
            fault = _fault(files, digest, here, grown_up, needed=digest in _needed(opened))
        if fault is not None:
            yield fault


def _needed(opened: Opened) -> set[str]:
    with opened() as conn:
        return step_needs.digests(conn)


def _fault(files: FileStore, digest: str, here: Shelf, grown_up: datetime, *, needed: bool) -> Fault | None:
    path = step_files.path(files, digest)
    where = str(path.relative_to(files.root))
    if not needed:
        young = here.placed.get(digest, 0.0) > grown_up.timestamp()
        return (
            None
            if young or not path.is_file()
            else Fault(Code.ORPHAN_STEP, where, "no row needs it", digest=digest)
        )
    with told(f"the data set {digest} of a procedure step cannot be read"):
        try:
            seen = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:
            return Fault(Code.MISSING_STEP, where, "a row of a procedure step has no file", digest=digest)
    if seen == digest:
        return None
    return Fault(Code.DAMAGED_STEP, where, "its bytes are not those that its name says", digest=digest)
