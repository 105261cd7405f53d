"""The C-STORE handler: staged file -> Received -> ingest -> status. Decodes nothing.

Owns the rule that every object gets an answer and that no file is left behind by one that was refused.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from pydicom.dataset import Dataset
from pynetdicom.dimse_messages import DIMSEMessage

from dicom_node.domain.errors import CannotUnderstandError, DataSetMismatchError, NodeError
from dicom_node.domain.ids import check_uid
from dicom_node.domain.types import Ingested, Received
from dicom_node.receive.association import AssociationFacts
from dicom_node.receive.staging import Command, StagedDataSet
from dicom_node.receive.status import PROCESSING_FAILURE, Answer, answer_error, answer_ingested

log = logging.getLogger(__name__)

_C_STORE_RQ = 0x0001


def check_command(message: DIMSEMessage, accepted: dict[int | None, tuple[str, str]]) -> Command:
    """Return what a C-STORE command says, if it may be followed by a data set.

    Parameters
    ----------
    message
        The message, its command set decoded.
    accepted
        Abstract and transfer syntax of each accepted presentation context, by its ID.

    Raises
    ------
    CannotUnderstandError
        If the message is no C-STORE request: no other service here takes a data set.
    DataSetMismatchError
        If the context was not accepted, or the command names another SOP class than its context. This keeps
        out objects of classes that were not negotiated, reports among them.
    InvalidIdentifierError
        If a UID breaks the syntax of PS3.5 section 9.1.
    """
    command = message.command_set
    if command.get("CommandField") != _C_STORE_RQ:
        raise CannotUnderstandError("a data set came without a C-STORE command; no other service takes one")
    sop_class = check_uid(str(command.get("AffectedSOPClassUID", "")), "Affected SOP Class UID")
    sop_instance = check_uid(str(command.get("AffectedSOPInstanceUID", "")), "Affected SOP Instance UID")
    if message.context_id not in accepted:
        raise DataSetMismatchError(f"context {message.context_id} was not accepted; use one that was")
    abstract_syntax, transfer_syntax = accepted[message.context_id]
    if sop_class != abstract_syntax:
        raise DataSetMismatchError(
            f"SOP class is not the one of its context: {sop_class} in the command, {abstract_syntax} negotiated"
        )
    return Command(sop_class, sop_instance, transfer_syntax)


class StoreHandler:
    """Answers one C-STORE.

    Parameters
    ----------
    ingest
        Takes custody of the file; on return the object is safe.
    on_conflict
        What a peer is told whose object is held already with other content.
    clock
        Returns the current moment, timezone-aware.
    """

    def __init__(
        self,
        ingest: Callable[[Received], Ingested],
        on_conflict: Literal["accept", "refuse"],
        clock: Callable[[], datetime],
    ) -> None:
        self._ingest = ingest
        self._on_conflict = on_conflict
        self._clock = clock

    def __call__(self, staged: StagedDataSet, facts: AssociationFacts) -> Answer:
        """Hand a data set to ingest and return the answer. Never raises."""
        sop_instance_uid = ""
        try:
            command, path, offset = staged.finish()
            sop_instance_uid = command.sop_instance_uid
            ingested = self._ingest(
                Received(
                    path=path,
                    dataset_offset=offset,
                    sop_class_uid=command.sop_class_uid,
                    sop_instance_uid=sop_instance_uid,
                    transfer_syntax_uid=command.transfer_syntax_uid,
                    calling_ae_title=facts.calling,
                    called_ae_title=facts.called,
                    peer_address=facts.peer_address,
                    association_id=facts.id,
                    received_at=self._clock(),
                )
            )
        except NodeError as error:
            staged.discard()
            answer = answer_error(error)
            log.warning(
                "C-STORE refused", extra=_fields(facts, sop_instance_uid, answer) | {"reason": str(error)}
            )
            return answer
        except Exception as error:  # noqa: BLE001 - one of the two places: a fault of ours must be answered too
            staged.discard()
            answer = Answer(PROCESSING_FAILURE, "fault of this node, see its log")
            # the exception's own text might quote the data set
            where = "".join(traceback.format_tb(error.__traceback__))
            fields = _fields(facts, sop_instance_uid, answer)
            log.error("C-STORE failed", extra=fields | {"error": type(error).__name__, "where": where})  # noqa: TRY400
            return answer
        staged.handed_over()
        return answer_ingested(ingested, self._on_conflict)


def response(answer: Answer) -> Dataset:
    """Return an answer as the status elements of a C-STORE-RSP (PS3.7 section 9.3.1.2)."""
    elements = Dataset()
    elements.Status = answer.status
    if answer.comment:
        elements.ErrorComment = answer.comment
    return elements


def _fields(facts: AssociationFacts, sop_instance_uid: str, answer: Answer) -> dict[str, object]:
    return {
        "association_id": facts.id,
        "calling_ae_title": facts.calling,
        "sop_instance_uid": sop_instance_uid,
        "status": f"0x{answer.status:04X}",
    }
