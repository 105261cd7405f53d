"""Tells a subscriber what became of procedure steps, on an association of the node's own (PS3.4 section CC.2.4)."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context, build_role

from dicom_node.deliver.association import associated, where
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.sop_classes import UPS_EVENT, UPS_PUSH
from dicom_node.domain.types import Destination


def tell(
    destination: Destination,
    events: Sequence[tuple[str, int, Dataset]],
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> int:
    """Send events in their order and return how many were answered, whatever the status: it was heard.

    Parameters
    ----------
    events
        SOP Instance UID, event type and Event Information of each.

    Raises
    ------
    NotOfferedError
        If the peer takes no events.
    DestinationAwayError, DestinationRefusedError
        As `scu.send`; only where none was answered.
    """
    heard = 0
    syntaxes = [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)]
    with associated(
        destination,
        [build_context(UPS_EVENT.uid, syntaxes)],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
        roles=[build_role(UPS_EVENT.uid, scp_role=True)],
    ) as association:
        for uid, event_type, information in events:
            try:
                answer, _ = association.send_n_event_report(
                    information, event_type, UPS_PUSH.uid, uid, meta_uid=UPS_EVENT.uid
                )
            except RuntimeError:  # the association has ended
                break
            if "Status" not in answer:
                break
            heard += 1
    if events and not heard:
        raise DestinationAwayError(f"{where(destination)} did not answer an event within {timeout:g} s")
    return heard
