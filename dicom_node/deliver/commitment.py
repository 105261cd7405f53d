"""Storage Commitment Push Model (PS3.4 annex J) on associations that this node opens: asks, and answers.

A destination is asked to answer for what it was sent; a peer that asked this node is told what it answers for. Owns
the request, and how an N-EVENT-REPORT is read and written whichever way it goes: on the association of the request, or
later on one that the provider opens to the user. Keeps no state.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.presentation import build_context, build_role

from dicom_node.deliver.association import associated, where
from dicom_node.domain.commitment import CommitmentResult, Failure, Reference
from dicom_node.domain.errors import CannotUnderstandError, DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Destination

PUSH_MODEL = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
"""The well-known SOP Instance of the Push Model (PS3.4 section J.3.5)."""

_ALL_COMMITTED, _SOME_FAILED = 1, 2
_SUCCESS, _PROCESSING_FAILURE = 0x0000, 0x0110


def request(
    destination: Destination,
    references: Sequence[Reference],
    transaction_uid: str,
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
    wait: float = 5.0,
) -> CommitmentResult | None:
    """Ask a destination to commit itself to objects, and wait a little for its answer.

    Parameters
    ----------
    references
        Objects that it has stored.
    transaction_uid
        By which an answer on another association is known.
    wait
        Seconds to keep the association open for an answer on it.

    Returns
    -------
    CommitmentResult or None
        The answer, if it came on this association; else it may come on one that the destination opens.

    Raises
    ------
    NotOfferedError
        If it offers no storage commitment.
    DestinationAwayError, DestinationRefusedError
        As `scu.send`; refused also where the request itself was, or ended the association.
    """
    answered = threading.Event()
    results: list[CommitmentResult] = []
    serving: list[threading.Thread] = []

    def on_report(event: evt.Event) -> tuple[int, None]:
        serving.append(threading.current_thread())
        try:
            result = read_report(event.event_type, event.event_information)
        except CannotUnderstandError:
            return _PROCESSING_FAILURE, None
        if result.transaction_uid == transaction_uid:
            results.append(result)
        return _SUCCESS, None

    def on_sent(_event: evt.Event) -> None:
        if results:  # our own answer to the report has left: the association may end
            answered.set()

    with associated(
        destination,
        [build_context(PUSH_MODEL, [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)])],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
        handlers=[(evt.EVT_N_EVENT_REPORT, on_report), (evt.EVT_DIMSE_SENT, on_sent)],
    ) as association:
        began = time.monotonic()
        try:
            answer, _ = association.send_n_action(_action(references, transaction_uid), 1, PUSH_MODEL, INSTANCE)
        except RuntimeError as error:
            raise DestinationAwayError(
                f"{where(destination)} ended the association before the request"
            ) from error
        if "Status" not in answer:
            if time.monotonic() - began < timeout:  # it did not take too long, it ended the association
                raise DestinationRefusedError(
                    f"{where(destination)} ended the association at a storage commitment request; it must know "
                    f"{calling_ae_title!r}, to which it answers"
                )
            raise DestinationAwayError(
                f"{where(destination)} did not answer a storage commitment request within {timeout:g} s"
            )
        if answer.Status != _SUCCESS:
            raise DestinationRefusedError(
                f"{where(destination)} answered 0x{int(answer.Status):04X} to a storage commitment request; "
                "0x0000 would be right"
            )
        answered.wait(wait)
        for thread in serving:  # pynetdicom's own for each report; one that ends during a release holds it up
            thread.join(timeout)
    return results[0] if results else None


def tell(
    destination: Destination,
    result: CommitmentResult,
    *,
    calling_ae_title: str,
    timeout: float = 30.0,
    maximum_pdu_size: int = 131_072,
) -> None:
    """Answer a request on an association of our own, in the role of the provider (PS3.4 section J.3.3).

    Raises
    ------
    NotOfferedError
        If the peer takes no such report.
    DestinationAwayError, DestinationRefusedError
        As `scu.send`; refused also where it does not know the transaction.
    """
    event_type, information = report(result)
    with associated(
        destination,
        [build_context(PUSH_MODEL, [str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)])],
        calling_ae_title=calling_ae_title,
        timeout=timeout,
        maximum_pdu_size=maximum_pdu_size,
        roles=[build_role(PUSH_MODEL, scp_role=True)],
    ) as association:
        try:
            answer, _ = association.send_n_event_report(information, event_type, PUSH_MODEL, INSTANCE)
        except RuntimeError as error:
            raise DestinationAwayError(
                f"{where(destination)} ended the association before the report"
            ) from error
    if "Status" not in answer:
        raise DestinationAwayError(
            f"{where(destination)} did not answer a storage commitment report within {timeout:g} s"
        )
    if answer.Status != _SUCCESS:
        raise DestinationRefusedError(
            f"{where(destination)} answered 0x{int(answer.Status):04X} to a storage commitment report; "
            "0x0000 would be right"
        )


def read_report(event_type: int | None, information: Dataset) -> CommitmentResult:
    """Read the Event Information of an N-EVENT-REPORT (PS3.4 table J.3-2).

    Raises
    ------
    CannotUnderstandError
        If it is of another type, or names no transaction.
    """
    transaction_uid = str(information.get("TransactionUID", "") or "")
    if event_type not in (_ALL_COMMITTED, _SOME_FAILED) or not transaction_uid:
        raise CannotUnderstandError(
            f"an event report of type {event_type} {'without' if not transaction_uid else 'with'} a Transaction UID "
            "is no answer to a storage commitment request; type 1 or 2 with one is"
        )
    failed = tuple(
        Failure(_reference(item), _reason(item)) for item in information.get("FailedSOPSequence", None) or ()
    )
    committed = tuple(_reference(item) for item in information.get("ReferencedSOPSequence", None) or ())
    return CommitmentResult(transaction_uid, committed, failed)


def report(result: CommitmentResult) -> tuple[int, Dataset]:
    """Return event type and Event Information that tell a result (PS3.4 table J.3-2)."""
    information = Dataset()
    information.TransactionUID = result.transaction_uid
    if result.committed or not result.failed:
        information.ReferencedSOPSequence = _items(result.committed)
    if result.failed:
        information.FailedSOPSequence = [_item(failure.reference, failure.reason) for failure in result.failed]
    return (_SOME_FAILED if result.failed else _ALL_COMMITTED), information


def _action(references: Sequence[Reference], transaction_uid: str) -> Dataset:
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = _items(references)
    return information


def _items(references: Iterable[Reference]) -> list[Dataset]:
    return [_item(reference) for reference in references]


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    if reason is not None:
        item.FailureReason = reason
    return item


def _reason(item: Dataset) -> int:
    reason = int(item.get("FailureReason", 0) or 0)
    return reason if 0 < reason <= 0xFFFF else _PROCESSING_FAILURE


def _reference(item: Dataset) -> Reference:
    return Reference(str(item.get("ReferencedSOPClassUID", "")), str(item.get("ReferencedSOPInstanceUID", "")))
