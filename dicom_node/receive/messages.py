"""Messages of one association as they arrive: fragments in order, commands checked, data sets into files.

Owns what a peer may do within P-DATA (PS3.8 annex E): one message at a time, on one accepted context, command
before data set, each of bounded size, none of them slower than the configured rate. Sends the event reports that are
owed to the peer, one at a time, between its messages. Knows no sockets.

What pynetdicom 3.0 does otherwise: fragments of any context are taken for the same message, an empty fragment
ends its reader thread, N-EVENT-REPORT starts a thread for each message, messages queue without a limit, and a request
with an empty UID is never answered.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sized
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, N_EVENT_REPORT
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.receive.association import Link
from dicom_node.receive.command import LARGEST_COMMAND, MalformedCommandError, check_offered, parse
from dicom_node.receive.held import HeldDataSet
from dicom_node.receive.offered import C_STORE_RQ, HELD, N_EVENT_REPORT_RSP
from dicom_node.receive.staging import StagedDataSet

_MOST_FRAGMENTS = 256
_MOST_WAITING = 2
_MOST_CANCELLED = 10
_PAUSE = 0.05
_BEFORE_REPORT = 0.5
"""Seconds in which a peer may end the association that does not wait for an event report on it."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """A request that this side is to send. `answered` is told its status; None if the association ended before."""

    request: N_EVENT_REPORT
    context_id: int
    answered: Callable[[int | None], None]


class Messages(DIMSEServiceProvider):
    """DIMSE provider of one association.

    Parameters
    ----------
    link
        What the node keeps of the association.
    stage
        Returns the buffer for the data set of a message.
    settled
        Told when a message has been dealt with.
    cut
        Ends the association for the reason given.
    stall
        Seconds over which a message must make progress.
    least
        Bytes that it must bring in that time.
    """

    def __init__(
        self,
        association: Association,
        link: Link,
        *,
        stage: Callable[[DIMSEMessage], StagedDataSet],
        settled: Callable[[], None],
        cut: Callable[[str], None],
        stall: float,
        least: float,
    ) -> None:
        super().__init__(association)
        self.link = link
        self._stage = stage
        self._settled = settled
        self._cut = cut
        self._stall = stall
        self._least = least
        self._context_id: int | None = None
        self._command = bytearray()
        self._in_data_set = False
        self._data_set: StagedDataSet | HeldDataSet | None = None
        self._reports: deque[tuple[float, EventReport]] = deque()
        self._reported: EventReport | None = None
        self._numbers = count(1)
        self._staged: set[StagedDataSet] = set()
        self._serving = False
        self.served_at = time.monotonic()
        self._since = 0.0
        self._bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or waits for its answer."""
        return self._serving or self.message is not None or not self.msg_queue.empty()

    @property
    def hungry(self) -> bool:
        """Whether more may be read. A peer that sends faster than it is served waits in its TCP window."""
        return self.message is not None or self.msg_queue.qsize() < _MOST_WAITING

    def overdue(self, now: float) -> str | None:
        """Return why the message that is arriving takes too long, if it does."""
        if self.message is None or now - self._since < self._stall:
            return None
        if self._bytes == 0 or self._bytes < self._least:
            return f"a message brought {self._bytes} bytes in {now - self._since:.1f} s"
        self._since, self._bytes = now, 0
        return None

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in one P-DATA."""
        fragments = primitive.presentation_data_value_list
        try:
            _count(fragments)
            for context_id, value in fragments:
                self._check(context_id, value)
                single = P_DATA()
                single.presentation_data_value_list.append((context_id, value))
                self._take(single)
        except MalformedCommandError as error:
            self._cut(str(error))

    def _check(self, context_id: int, value: bytes) -> None:
        if not value:
            raise MalformedCommandError("an empty fragment")
        is_command, is_last = value[0] & 1, value[0] & 2
        if self.message is None:
            self._begin(context_id)
        if context_id != self._context_id:
            raise MalformedCommandError(
                f"a fragment of context {context_id} in a message of {self._context_id}"
            )
        if bool(is_command) == self._in_data_set:
            raise MalformedCommandError("command and data set of a message are out of order")
        self._bytes += len(value)
        if is_command:
            self._command += value[1:]
            if len(self._command) > LARGEST_COMMAND:
                raise MalformedCommandError(f"a command set of more than {LARGEST_COMMAND} bytes")
            if is_last:
                self._take_command()
        elif self._data_set is not None and self._data_set.endless:
            raise MalformedCommandError("a data set that was refused for its size goes on and on")

    def _take(self, single: P_DATA) -> None:
        message = self.message
        if message is None or not message.decode_msg(single, self.assoc):
            return
        try:
            primitive: Any = message.message_to_primitive()
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise MalformedCommandError("a command whose values break their VR") from error
        self.message = None
        if isinstance(primitive, C_CANCEL):  # it takes no turn: the answers to its C-FIND may be going out
            if len(self.cancel_req) < _MOST_CANCELLED:
                self.cancel_req[primitive.MessageIDBeingRespondedTo or 0] = primitive
            return
        if primitive.MessageIDBeingRespondedTo is None and not primitive.is_valid_request:
            raise MalformedCommandError("a request without what its service needs")
        self.msg_queue.put((message.context_id or 0, primitive))

    def _begin(self, context_id: int) -> None:
        if context_id not in self.assoc._accepted_cx:  # noqa: SLF001 - the public list is sorted anew each time
            raise MalformedCommandError(f"a message on context {context_id}, which was not accepted")
        self.message = DIMSEMessage()
        self._context_id = context_id
        self._command.clear()
        self._in_data_set = False
        self._data_set = None
        self._since, self._bytes = time.monotonic(), 0

    def _take_command(self) -> None:
        command = parse(bytes(self._command))
        self._in_data_set = command.has_data_set
        context = self.assoc._accepted_cx[self._context_id or 0]  # noqa: SLF001 - as above
        check_offered(command, str(context.abstract_syntax))
        if command.field == N_EVENT_REPORT_RSP and self._reported is None:
            raise MalformedCommandError("an answer to an event report that was not sent")
        if self.message is None:
            return
        if command.field == C_STORE_RQ:
            self.message.data_set = self._data_set = self._stage(self.message)
            self._staged.add(self._data_set)
        elif command.field in HELD:
            self.message.data_set = self._data_set = HeldDataSet()

    def get_msg(self, block: bool = False) -> Any:
        """Return the next message, waiting a moment for one. The upper layer puts in nothing at an end."""
        if self._serving:
            self._serving = False
            self.served_at = time.monotonic()
            self._settled()
        if block:
            return super().get_msg(block)
        self._send_report()
        try:
            return self._serve(self.msg_queue.get(timeout=_PAUSE))
        except queue.Empty:
            return None, None

    def _serve(self, item: Any) -> Any:
        message = item[1]
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            self._take_answer(message)
            return None, None
        self._serving = message is not None
        return item

    def report(self, report: EventReport) -> None:
        """Send an event report when the peer has had a moment to end the association instead."""
        self._reports.append((time.monotonic() + _BEFORE_REPORT, report))

    def _send_report(self) -> None:
        if self._reported is not None or not self._reports or self.busy or not self.assoc.is_established:
            return
        due, report = self._reports[0]
        if time.monotonic() < due:
            return
        self._reports.popleft()
        self._reported = report
        report.request.MessageID = next(self._numbers) % 0xFFFF
        self.send_msg(report.request, report.context_id)

    def _take_answer(self, answer: N_EVENT_REPORT) -> None:
        report = self._reported
        if report is None or answer.MessageIDBeingRespondedTo != report.request.MessageID:
            self._cut("an answer to an event report that was not sent")
            return
        self._reported = None
        self.served_at = time.monotonic()
        report.answered(answer.Status)

    def forget(self, staged: StagedDataSet) -> None:
        """The handler is done with a data set."""
        self._staged.discard(staged)

    def discard_all(self) -> None:
        """Remove the files of data sets that no handler saw, and tell of event reports that nobody answered."""
        while self._staged:
            self._staged.pop().discard()
        unanswered = [report for _, report in self._reports]
        if self._reported is not None:
            unanswered.append(self._reported)
        self._reports.clear()
        self._reported = None
        for report in unanswered:
            report.answered(None)


def messages_of(association: Association) -> Messages:
    """Return the provider of an association that was let in here."""
    return cast("Messages", association.dimse)


def _count(fragments: Sized) -> None:
    if not 0 < len(fragments) <= _MOST_FRAGMENTS:
        raise MalformedCommandError(f"a PDU with {len(fragments)} fragments")
