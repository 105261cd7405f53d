"""The statuses that answer a C-STORE, and which outcome or error gives which. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from dicom_node.domain.errors import NodeError
from dicom_node.domain.types import Ingested

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111

MEANINGS: dict[int, str] = {
    SUCCESS: "Success: the object is on the disk and recorded, or was already",
    PROCESSING_FAILURE: "Processing failure: a fault of this node, written to its log",
    DUPLICATE_SOP_INSTANCE: "Duplicate SOP instance: held with other content, and configured to be refused",
    0xA700: "Refused, out of resources: disk, database or shutdown; send again later. Or the data set is too large",
    0xA900: "Data set does not match SOP class, or its identifiers break the standard's syntax",
    0xC000: "Cannot understand: the bytes are no data set in the negotiated transfer syntax",
}
"""PS3.4 table B.2-1 and PS3.7 annex C, in the sense this node gives them."""

COMMENT_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and Error Comment (0000,0902) of a C-STORE response."""

    status: int
    comment: str = ""


def answer_ingested(ingested: Ingested, on_conflict: Literal["accept", "refuse"]) -> Answer:
    """Return the answer to an object that was taken in.

    An object that is held already with other bytes is kept apart either way; `on_conflict` only decides
    what the peer is told.
    """
    if ingested is Ingested.CONFLICT and on_conflict == "refuse":
        return Answer(DUPLICATE_SOP_INSTANCE, "held with other content; kept apart")
    return Answer(SUCCESS)


def answer_error(error: NodeError) -> Answer:
    """Return the answer to an object that was not taken in."""
    return Answer(error.dimse_status, error_comment(str(error)))


def error_comment(text: str) -> str:
    """Return `text` as a legal Error Comment (VR LO): one line, ASCII, no backslash, at most 64 characters."""
    line = " ".join(text.split()).replace("\\", "/").encode("ascii", "replace").decode("ascii")
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= COMMENT_LENGTH else line[: COMMENT_LENGTH - 3].rstrip() + "..."


def errors_by_status() -> dict[int, list[str]]:
    """Return the names of the error classes that each failure status answers, for the conformance statement."""
    table: dict[int, list[str]] = {}
    for error in _family(NodeError):
        table.setdefault(error.dimse_status, []).append(error.__name__)
    return {status: sorted(names) for status, names in sorted(table.items())}


def _family(error: type[NodeError]) -> Iterator[type[NodeError]]:
    yield error
    for child in error.__subclasses__():
        yield from _family(child)
