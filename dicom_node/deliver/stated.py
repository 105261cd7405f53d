"""What the Conformance Statement tells of the calling side, made from what the calling side goes by. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from pydicom.uid import UID

from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.deliver.commitment import PUSH_MODEL
from dicom_node.deliver.find import STUDY_ROOT_FIND
from dicom_node.domain.sop_classes import VERIFICATION
from dicom_node.domain.statement import Table

_TAKEN = {Meaning.STORED: "stored", Meaning.AWAY: "sent again later", Meaning.REFUSED: "refused"}
_SYNTAXES = "Explicit VR Little Endian, Implicit VR Little Endian"


def proposed(stored: Collection[str], asked: Collection[str]) -> Table:
    """Return the SOP classes that are proposed.

    Parameters
    ----------
    stored
        UIDs of the storage SOP classes that are sent.
    asked
        Ways of confirmation in use: "commitment", "find".
    """
    services = {"commitment": PUSH_MODEL, "find": STUDY_ROOT_FIND}
    uids = [VERIFICATION.uid, *stored, *(uid for way, uid in services.items() if way in asked)]
    return Table(
        ("SOP class", "UID", "transfer syntaxes"), tuple((UID(uid).name, uid, _SYNTAXES) for uid in uids)
    )


def statuses() -> Table:
    """Return how the status of a C-STORE response is taken, of every value that there is."""
    rest = judge_status(0x0001)
    rows = [
        (_span(first, last), name, _TAKEN[meaning])
        for first, last, (meaning, name) in _runs()
        if (meaning, name) != rest
    ]
    return Table(("status", "meaning", "taken as"), (*rows, ("any other", rest[1], _TAKEN[rest[0]])))


def _runs() -> Iterator[tuple[int, int, tuple[Meaning, str]]]:
    first, judged = 0, judge_status(0)
    for status in range(1, 0x10001):
        following = judge_status(status) if status < 0x10000 else None
        if following != judged:
            yield first, status - 1, judged
            if following is None:
                return
            first, judged = status, following


def _span(first: int, last: int) -> str:
    """Return 0xA7xx for 0xA700 to 0xA7FF, and so on."""
    digits = f"{first:04X}"
    wild = len(f"{last - first:X}") if last > first else 0
    return f"0x{digits[: 4 - wild]}{'x' * wild}"
