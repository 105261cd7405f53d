"""What the answers to C-GET and C-MOVE mean (PS3.4 tables C.4-2 and C.4-3). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.domain.errors import DestinationRefusedError
from dicom_node.domain.retrieval import Archive
from dicom_node.worklist import found
from dicom_node.worklist.connect import where
from dicom_node.worklist.query import refused

PENDING = (0xFF00, 0xFF01)
WARNING = 0xB000
CANCELED = 0xFE00
MOVE_DESTINATION_UNKNOWN = 0xA801
_NONE_STORED = 0xA702
_MOST_FAILED = 5000


@dataclass(frozen=True, slots=True)
class Suboperations:
    """What became of the sub-operations, as the archive counts them.

    Attributes
    ----------
    sent
        Stored, with or without a warning.
    failed
        Not stored.
    failed_uids
        SOP Instance UIDs of those, where it names them.
    status
        The last final status that was no Success.
    """

    sent: int = 0
    failed: int = 0
    failed_uids: frozenset[str] = frozenset()
    status: int = 0


def judge(
    archive: Archive,
    service: str,
    before: Suboperations,
    answer: Dataset,
    failed: Dataset | None,
    destination: str = "",
    *,
    came: bool = False,
) -> Suboperations:
    """Add one answer to what came before; pending ones change nothing.

    Parameters
    ----------
    came
        Whether images came at all: if so, it was this node that took none of them (0xA702 says no more than that).

    Raises
    ------
    DestinationRefusedError
        If the archive does not know where to send (0xA801), or does not understand what is asked of it.
    DestinationAwayError
        If it could not do it now.
    """
    status = int(answer.Status)
    if status in PENDING:
        return before
    sent = _count(answer, "NumberOfCompletedSuboperations") + _count(answer, "NumberOfWarningSuboperations")
    not_sent = _count(answer, "NumberOfFailedSuboperations")
    not_sent += _count(answer, "NumberOfRemainingSuboperations") if status == CANCELED else 0
    if status == MOVE_DESTINATION_UNKNOWN:
        raise DestinationRefusedError(
            f"{where(archive)} does not know where to send (0xA801, move destination unknown); it must know the "
            f"AE title {destination!r} with host and port of this node"
        )
    if status not in (0, WARNING, CANCELED) and not sent and not (status == _NONE_STORED and came):
        raise refused(archive, service, status)
    return Suboperations(
        before.sent + sent,
        before.failed + not_sent,
        before.failed_uids | _uids(failed),
        status or before.status,
    )


def _count(answer: Dataset, keyword: str) -> int:
    return found.number(answer.get(keyword)) or 0


def _uids(failed: Dataset | None) -> frozenset[str]:
    if failed is None:
        return frozenset()
    value = failed.get("FailedSOPInstanceUIDList") or ()
    many = [value] if isinstance(value, str) else list(value)[:_MOST_FAILED]
    return frozenset(one for one in map(found.uid, many) if one)
