"""Stores and searches objects by DICOMweb (PS3.18 10.5 and 10.6). Owns how an answer is told; keeps no state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO

import requests
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.deliver.answers import Meaning, judge_status
from dicom_node.deliver.beside import with_objects
from dicom_node.deliver.web import judge_http, session, told, where
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Delivery, Destination

_CONFLICT = 409
_SOP_CLASS_NOT_SUPPORTED = 0x0122


def send_first(
    destination: Destination,
    alternatives: Mapping[str, Callable[[], bytes]],
    *,
    also: Sequence[bytes] = (),
    timeout: float = 30.0,
) -> Delivery:
    """Store the first of several forms of one object that a destination takes (STOW-RS), and what accompanies it.

    Nothing is negotiated: the next form is sent where it answers that it does not store the class (0x0122, 0xA9xx).

    Parameters
    ----------
    alternatives
        By SOP Class UID, what makes the Part 10 file; the preferred one first.
    also
        Part 10 files that are sent after it, each by itself; those that are declined change nothing for it.
    timeout
        Longest wait, in seconds, for the connection and for each piece of an answer.

    Returns
    -------
    Delivery
        Of the form that was stored; its `sent_as` is that form's class.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        As `web.session`, and as the Failure Reason says.
    """
    left = list(alternatives)
    for sop_class in left:
        data_set = dcmread(BytesIO(alternatives[sop_class]()))
        uid, status = str(data_set.SOPInstanceUID), _store(destination, data_set, timeout)
        if sop_class != left[-1] and _takes_no_such(status):
            continue
        stored = replace(_delivery(destination, uid, status), sent_as=sop_class)
        extras = (dcmread(BytesIO(content)) for content in also)
        return with_objects(destination, stored, ((one, _store(destination, one, timeout)) for one in extras))
    raise DestinationRefusedError(f"{where(destination)}: there is nothing to send")


def holds(
    destination: Destination,
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    sop_instance_uid: str,
    timeout: float = 30.0,
) -> bool:
    """Ask whether a destination finds one object (QIDO-RS, instances of a series).

    Raises
    ------
    NotOfferedError
        If it offers no search.
    DestinationAwayError, DestinationRefusedError
        As `web.session`.
    """
    with session(destination, timeout, []) as client:
        found = client.search_for_instances(
            study_instance_uid, series_instance_uid, search_filters={"SOPInstanceUID": sop_instance_uid}
        )
        return any(one["00080018"]["Value"][0] == sop_instance_uid for one in found)


def probe(destination: Destination, *, timeout: float = 30.0) -> None:
    """Verify that a destination answers a search; it is for a study that nobody has.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        As `web.session`.
    """
    with session(destination, timeout, []) as client:
        client.search_for_studies(limit=1, search_filters={"StudyInstanceUID": "2.25.0"})


def _store(destination: Destination, data_set: Dataset, timeout: float) -> int:
    """Return the status of the object: 0, its Warning Reason or its Failure Reason (PS3.18 10.5.3, annex I)."""
    answers: list[requests.Response] = []
    with session(destination, timeout, answers) as client:
        try:
            client.store_instances([data_set])
        except requests.HTTPError:
            if answers[-1].status_code != _CONFLICT:
                raise
        answer = answers[-1]
        account = told(answer)
        uid = data_set.SOPInstanceUID
        for item in account.get("FailedSOPSequence", ()):
            if item.get("ReferencedSOPInstanceUID") == uid:
                return int(item.get("FailureReason", 0x0110))
        if answer.status_code == _CONFLICT:
            raise judge_http(destination, _CONFLICT)
        for item in account.get("ReferencedSOPSequence", ()):
            if item.get("ReferencedSOPInstanceUID") == uid:
                return int(item.get("WarningReason", 0))
        if account.get("OtherFailuresSequence"):
            raise DestinationRefusedError(
                f"{where(destination)} could not read what it was sent; find the cause in its log, then retry or cancel"
            )
        return 0


def _delivery(destination: Destination, uid: str, status: int) -> Delivery:
    meaning, name = judge_status(status)
    if meaning is Meaning.STORED:
        return Delivery(destination.name, uid, status, name if status else "")
    said = f"{where(destination)} did not store {uid}: failure reason 0x{status:04X} ({name})"
    if meaning is Meaning.AWAY:
        raise DestinationAwayError(f"{said}; it must have room and be in order to store it")
    raise DestinationRefusedError(f"{said}; find the cause in its log, then retry or cancel")


def _takes_no_such(status: int) -> bool:
    return status == _SOP_CLASS_NOT_SUPPORTED or status & 0xFF00 == 0xA900
