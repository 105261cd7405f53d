"""C-FIND as its user, at the level of one object (PS3.4 annex C): whether a destination holds what it was sent."""

from __future__ import annotations

import time

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.presentation import build_context

from dicom_node.deliver.association import associated, where
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Destination

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"

_PENDING = (0xFF00, 0xFF01)


def holds(
    destination: Destination,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> bool:
    """Ask whether a destination finds one object in its archive (Study Root, IMAGE level).

    Raises
    ------
    NotOfferedError
        If it offers no query.
    DestinationAwayError, DestinationRefusedError
        As `scu.send`; refused also where the query failed.
    """
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    query.StudyInstanceUID = study_instance_uid
    query.SeriesInstanceUID = series_instance_uid
    query.SOPInstanceUID = sop_instance_uid
    found = False
    with associated(
        destination,
        [build_context(STUDY_ROOT_FIND, [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)])],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
    ) as association:
        began = time.monotonic()
        try:
            for answer, match in association.send_c_find(query, STUDY_ROOT_FIND):
                if "Status" not in answer:
                    if time.monotonic() - began < timeout:  # it did not take too long, it ended the association
                        raise DestinationRefusedError(
                            f"{where(destination)} ended the association at a query; it must allow "
                            f"{calling_ae_title!r} to query"
                        )
                    raise DestinationAwayError(
                        f"{where(destination)} did not answer a query within {timeout:g} s"
                    )
                if answer.Status in _PENDING:
                    found |= match is not None and str(match.get("SOPInstanceUID", "")) == sop_instance_uid
                elif answer.Status != 0:
                    raise DestinationRefusedError(
                        f"{where(destination)} answered 0x{int(answer.Status):04X} to a query; 0x0000 would be right"
                    )
        except RuntimeError as error:
            raise DestinationAwayError(
                f"{where(destination)} ended the association before the query"
            ) from error
    return found
