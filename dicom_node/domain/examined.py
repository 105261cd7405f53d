"""What comes back of one image that was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.explanation import Explanation
from dicom_node.domain.types import ImageResult


@dataclass(frozen=True, slots=True)
class Examined:
    """The result of one image, and where it lies far from normal, as far as that was asked for and could be told."""

    result: ImageResult
    explanation: Explanation | None = None
