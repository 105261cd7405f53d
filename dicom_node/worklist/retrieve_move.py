"""C-MOVE as its user (PS3.4 C.4.2): the archive sends the images to this node's own AE title, where its SCP takes them.

That SCP may be another process, so what arrived is counted by what is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydicom.dataset import Dataset
from pynetdicom.presentation import build_context

from dicom_node.domain.errors import NotOfferedError
from dicom_node.domain.retrieval import Archive
from dicom_node.worklist import messages_in
from dicom_node.worklist.connect import Connect, peer_of, where
from dicom_node.worklist.query import UNCOMPRESSED, lost
from dicom_node.worklist.suboperations import Suboperations, judge

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
_LOOK = 0.25


def move(connect: Connect, archive: Archive, identifiers: Sequence[Dataset], destination: str) -> Suboperations:
    """Have the archive send what the identifiers name, one request for each, to the AE title `destination`.

    Raises
    ------
    NotOfferedError, DestinationAwayError, DestinationRefusedError
        If it fails as a whole; refused also where the archive does not know the AE title (0xA801).
    """
    total = Suboperations()
    context = build_context(STUDY_ROOT_MOVE, list(UNCOMPRESSED))
    with connect(peer_of(archive), [context], timeout=archive.timeout) as association:
        if not association.accepted_contexts:
            raise NotOfferedError(f"{where(archive)} offers no C-MOVE (Study Root)")
        messages_in.install(association)
        for number, identifier in enumerate(identifiers, 1):
            try:
                for answer, failed in association.send_c_move(
                    identifier, destination, STUDY_ROOT_MOVE, msg_id=number
                ):
                    if "Status" not in answer:
                        raise lost(archive, "C-MOVE")
                    total = judge(archive, "C-MOVE", total, answer, failed, destination)
            except RuntimeError as error:
                raise lost(archive, "C-MOVE") from error
    return total


def await_arrival(
    arrived: Callable[[], int], sent: int, timeout: float, pause: Callable[[float], object]
) -> int:
    """Wait until as many arrived as the archive says that it sent, or nothing more comes for `timeout` seconds.

    Some archives say that all is done when they have only begun.

    Returns
    -------
    int
        How many arrived.
    """
    seen, left = arrived(), timeout
    while seen < sent and left > 0:
        pause(_LOOK)
        left -= _LOOK
        now = arrived()
        if now > seen:
            seen, left = now, timeout
    return seen
