"""What the desk needs of pictures: which there are, and their bytes. Who makes them is joined in `node`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal, Protocol

from dicom_node.domain.errors import NotFoundError

Kind = Literal["thumbnail", "image"]


class Pictures(Protocol):
    """Makes pictures of images, and knows those that were made when they were scored."""

    def picture(self, path: Path, digest: str, kind: Kind) -> bytes:
        """Return a picture of a held image. Raises NotFoundError where none can be made."""

    def heat_map(self, sop_instance_uid: str) -> bytes:
        """Return the newest heat map of an image. Raises NotFoundError where none was made."""

    def normal(self, bank: str, identifier: str) -> bytes:
        """Return a picture of one of a bank's normals. Raises NotFoundError where the bank has none."""

    def heat_maps(self, sop_instance_uids: Collection[str]) -> Collection[str]:
        """Return of which of these images there is a heat map."""

    def normals(self, bank: str, identifiers: Collection[str]) -> Collection[str]:
        """Return of which of these normals the bank has a picture."""


class NoPictures:
    """A desk without pictures."""

    def picture(self, path: Path, digest: str, kind: Kind) -> bytes:  # noqa: ARG002 - as the protocol says
        """Raise NotFoundError."""
        raise NotFoundError(f"no {kind} is made here")

    def heat_map(self, sop_instance_uid: str) -> bytes:
        """Raise NotFoundError."""
        raise NotFoundError(f"there is no heat map of image {sop_instance_uid}")

    def normal(self, bank: str, identifier: str) -> bytes:
        """Raise NotFoundError."""
        raise NotFoundError(f"bank {bank} has no picture of its normal {identifier}")

    def heat_maps(self, sop_instance_uids: Collection[str]) -> Collection[str]:  # noqa: ARG002 - as above
        """Return none."""
        return ()

    def normals(self, bank: str, identifiers: Collection[str]) -> Collection[str]:  # noqa: ARG002 - as above
        """Return none."""
        return ()
