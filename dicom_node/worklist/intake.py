"""Where fetched images go, as this room sees it: staged, then taken. Owns the shape; the node gives the real ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

from dicom_node.domain.retrieval import Archive
from dicom_node.domain.types import Ingested


@dataclass(frozen=True, slots=True)
class Named:
    """What was said of a data set that is about to come."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Intake(Protocol):
    """The way in for one retrieval."""

    @property
    def taken(self) -> Mapping[str, Ingested]:
        """What became of each image that is safe now, by its SOP Instance UID."""

    def stage(self, check: Callable[[], Named]) -> BytesIO:
        """Return the buffer for the next data set; `check` is asked at its first byte, and may raise a NodeError.

        Writing to it never raises, takes bounded memory, and drops what goes beyond the largest data set.
        """

    def take(self, staged: Any) -> int:
        """Take what was staged, whole; return the C-STORE status that answers it. Never raises."""

    def require_space(self) -> None:
        """Raise OutOfResourcesError where the disk is too full."""


class Intakes(Protocol):
    """Opens the way in for images of one study out of one archive; what was not taken is gone at the end."""

    def __call__(self, archive: Archive, study_instance_uid: str) -> AbstractContextManager[Intake]:
        """Open it."""
