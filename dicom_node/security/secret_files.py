"""Files that hold a secret: read whole, never quoted, and looked at for who may read them."""

from __future__ import annotations

import stat
from pathlib import Path

from dicom_node.domain.errors import CertificateError

_LARGEST = 4096


def read_secret(path: Path) -> bytes:
    """Return the file's first line without its end.

    Raises
    ------
    CertificateError
        If it cannot be read, is empty, or is larger than a secret is.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) > _LARGEST:
        raise CertificateError(f"{path} has more than {_LARGEST} bytes; it should hold one secret, on one line")
    secret = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not secret:
        raise CertificateError(f"{path} is empty; it should hold one secret, on its first line")
    return secret


def open_to_others(path: Path) -> bool:
    """Return whether users beside the owner and the group may read or write a file; False if it is not there."""
    try:
        return bool(path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH))
    except OSError:
        return False
