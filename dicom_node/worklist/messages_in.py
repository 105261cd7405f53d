"""Messages that come on an association of this node's own: data sets into files, all else within small memory.

Owns what an archive may send while it answers a query or a retrieval. What pynetdicom 3.0 does otherwise: it gathers
every data set in memory, whatever its size, and lets fragments of any context into one message.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.domain.errors import DataSetMismatchError
from dicom_node.domain.ids import check_uid
from dicom_node.worklist.found import BROKEN
from dicom_node.worklist.intake import Named

LARGEST_COMMAND = 8 * 1024
LARGEST_IDENTIFIER = 256 * 1024
"""Bytes of an answer to a query, or of the list of images that failed."""


class Bounded(DIMSEServiceProvider):
    """DIMSE provider of an association that this node asked for.

    Parameters
    ----------
    stage
        Returns the buffer for a C-STORE's data set; None where none is expected.
    """

    def __init__(
        self, association: Association, stage: Callable[[Callable[[], Named]], BytesIO] | None
    ) -> None:
        super().__init__(association)
        self._stage = stage
        self._context_id: int | None = None
        self._begun = False
        self._size = 0
        self.fault = ""

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in one P-DATA; one that breaks the rules ends the association."""
        for context_id, value in primitive.presentation_data_value_list:
            if self.fault:
                return
            if self.message is None:
                self._context_id, self._begun, self._size = context_id, False, 0
            fault = self._check(context_id, value)
            if not fault:
                fault = self._take(context_id, value)
            if fault:
                self.fault = fault
                self.dul.event_queue.put("Evt19")
                self.msg_queue.put((None, None))
                return

    def _take(self, context_id: int, value: bytes) -> str:
        single = P_DATA()
        single.presentation_data_value_list.append((context_id, value))
        try:
            super().receive_primitive(single)
        except BROKEN as error:
            return f"a command that cannot be read ({type(error).__name__})"
        self._prepare()
        return ""

    def _check(self, context_id: int, value: bytes) -> str:
        if not value:
            return "an empty fragment"
        if context_id != self._context_id or context_id not in self.assoc._accepted_cx:  # noqa: SLF001 - as in receive
            return f"a fragment of context {context_id} within another's message"
        self._size += len(value)
        if value[0] & 1:
            return "a command set without an end" if self._size > LARGEST_COMMAND else ""
        if isinstance(self.message, C_STORE_RQ) and self._stage is not None:
            endless = getattr(self.message.data_set, "endless", False)
            return "a data set that was refused for its size goes on and on" if endless else ""
        return "an answer without an end" if self._size > LARGEST_IDENTIFIER + LARGEST_COMMAND else ""

    def _prepare(self) -> None:
        message = self.message
        if self._begun or self._stage is None or not isinstance(message, C_STORE_RQ):
            return
        self._begun = True
        message.data_set = self._stage(lambda: self._named(message))

    def _named(self, message: DIMSEMessage) -> Named:
        command: Any = message.command_set
        context = self.assoc._accepted_cx[self._context_id or 0]  # noqa: SLF001 - as above
        sop_class = check_uid(str(command.get("AffectedSOPClassUID", "")), "Affected SOP Class UID")
        sop_instance = check_uid(str(command.get("AffectedSOPInstanceUID", "")), "Affected SOP Instance UID")
        if sop_class != context.abstract_syntax:
            raise DataSetMismatchError(
                f"SOP class is not the one of its context: {sop_class} in the command, "
                f"{context.abstract_syntax} negotiated"
            )
        return Named(sop_class, sop_instance, str(context.transfer_syntax[0]))


def install(association: Association, stage: Callable[[Callable[[], Named]], BytesIO] | None = None) -> Bounded:
    """Have an association that was just accepted take in messages this way."""
    provider = Bounded(association, stage)
    association.dimse = provider
    return provider
