"""C-GET as its user (PS3.4 C.4.3): the images come as C-STOREs on the same association, and go in one by one.

Success is answered to each only when it is as safe as one that a modality sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pynetdicom import build_role, evt
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.errors import NotOfferedError
from dicom_node.domain.retrieval import Archive
from dicom_node.domain.sop_classes import STORAGE_CLASSES
from dicom_node.worklist import messages_in
from dicom_node.worklist.connect import Connect, peer_of, where
from dicom_node.worklist.intake import Intake
from dicom_node.worklist.query import UNCOMPRESSED, lost
from dicom_node.worklist.suboperations import Suboperations, judge

STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
_CANNOT_UNDERSTAND = 0xC000


def contexts(transfer_syntaxes: Sequence[str]) -> list[PresentationContext]:
    """Return what is proposed: the service, and each class in each syntax, so that nothing need be encoded again."""
    return [
        build_context(STUDY_ROOT_GET, list(UNCOMPRESSED)),
        *(build_context(entry.uid, syntax) for entry in STORAGE_CLASSES for syntax in transfer_syntaxes),
    ]


def get(
    connect: Connect,
    archive: Archive,
    identifiers: Sequence[Dataset],
    intake: Intake,
    transfer_syntaxes: Sequence[str],
) -> Suboperations:
    """Retrieve what the identifiers name, one request for each, on one association.

    Raises
    ------
    NotOfferedError
        If it offers no C-GET, or does not send on the association of the one who asks.
    DestinationAwayError, DestinationRefusedError
        If it fails as a whole. What came before is safe.
    """
    came: list[bool] = []

    def take(event: evt.Event) -> int:
        came.append(True)
        staged = getattr(event.request, "DataSet", None)  # a command without a data set has another buffer
        return intake.take(staged) if hasattr(staged, "finish") else _CANNOT_UNDERSTAND

    total = Suboperations()
    with connect(
        peer_of(archive),
        contexts(transfer_syntaxes),
        timeout=archive.timeout,
        handlers=[(evt.EVT_C_STORE, take)],
        roles=[build_role(entry.uid, scp_role=True) for entry in STORAGE_CLASSES],
    ) as association:
        accepted = association.accepted_contexts
        if not any(one.abstract_syntax == STUDY_ROOT_GET for one in accepted):
            raise NotOfferedError(
                f'{where(archive)} offers no C-GET (Study Root); set how = "c-move" or "wado"'
            )
        if not any(one.as_scp for one in accepted):
            raise NotOfferedError(
                f"{where(archive)} offers C-GET but sends no images on this association; "
                'it must accept the role of SCP for storage, or set how = "c-move"'
            )
        provider = messages_in.install(association, intake.stage)
        for number, identifier in enumerate(identifiers, 1):
            try:
                for answer, failed in association.send_c_get(identifier, STUDY_ROOT_GET, msg_id=number):
                    if "Status" not in answer:
                        intake.require_space()
                        error = lost(archive, "C-GET")
                        raise type(error)(f"{error}{': ' + provider.fault if provider.fault else ''}")
                    total = judge(archive, "C-GET", total, answer, failed, came=bool(came))
            except RuntimeError as error:
                raise lost(archive, "C-GET") from error
    return total
