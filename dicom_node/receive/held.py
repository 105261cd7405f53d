"""The data set of a message that is small by its nature, held in memory within a limit. Knows no sockets."""

from __future__ import annotations

from io import BytesIO
from typing import Any

LARGEST_HELD = 512 * 1024
"""Bytes. Two thousand references of a storage commitment request have some 300 kB."""


class HeldDataSet(BytesIO):
    """Buffer of one message's data set. What is beyond the limit is read and dropped."""

    def __init__(self, largest: int = LARGEST_HELD) -> None:
        super().__init__()
        self._largest = largest
        self._dropped = 0

    @property
    def too_large(self) -> bool:
        """Whether something was dropped."""
        return self._dropped > 0

    @property
    def endless(self) -> bool:
        """Whether more was dropped than a data set may have."""
        return self._dropped > self._largest

    def write(self, fragment: Any) -> int:
        """Append a fragment."""
        if self.too_large or self.tell() + len(fragment) > self._largest:
            self._dropped += len(fragment)
            return len(fragment)
        return super().write(fragment)
