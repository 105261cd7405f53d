"""Upper layer of one association (PS3.8): PDUs in and out, deadlines, sizes, and an end whatever the peer does.

Owns the association's socket from the moment its request has been read. Knows nothing of who may associate.

What pynetdicom 3.0 does otherwise: accepted sockets have no timeout, so that a peer that stops inside a PDU
holds its threads for ever; the length in a PDU header is believed up to 4 GB; sockets are read 4096 bytes at
a time; an idle association is polled a thousand times a second; an event that its state machine does not
expect kills the thread that would have to close the connection.
"""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, cast

from pydicom.errors import BytesLengthException
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import InvalidEventError
from pynetdicom.transport import AssociationSocket

from dicom_node.receive.messages import Messages
from dicom_node.receive.request import A_ASSOCIATE_RQ, HEADER, LARGEST_REQUEST
from dicom_node.security.channel import TlsChannel

_P_DATA = 0x04
_A_P_ABORT = b"\x07\0\0\0\0\x04\0\0\x02\0"
_ONLY_FOUR_BYTES = {0x05, 0x06, 0x07}
_LARGEST_DISCARD = 1024 * 1024
_PAUSE = 0.05
FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, BytesLengthException, InvalidEventError, LookupError),
    *(OSError, queue.Empty, RuntimeError, struct.error, TypeError, ValueError),
)
"""What hostile bytes can raise in a library that decodes them."""


class PeerSocket(AssociationSocket):
    """Connection to a peer, with a deadline for each PDU. Begins with bytes that were read before."""

    def __init__(self, association: Association, connection: Any, timeout: float, first: bytes) -> None:
        super().__init__(association, client_socket=connection)
        self._timeout = timeout
        self._first = memoryview(first)
        self._deadline = 0.0

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        if self._first or not super().ready:
            return bool(self._first)
        return not isinstance(self.socket, TlsChannel) or self.socket.readable()

    def _shutdown_socket(self) -> None:
        if isinstance(self.socket, TlsChannel):
            self.socket.say_end()
        super()._shutdown_socket()

    def begin_pdu(self) -> None:
        """Start the time that one PDU may take."""
        self._deadline = time.monotonic() + self._timeout

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer if the peer closes the connection.

        Raises
        ------
        OSError
            If the connection breaks or the PDU takes too long.
        """
        if self._first:
            taken, self._first = bytearray(self._first[:nr_bytes]), self._first[nr_bytes:]
            return taken
        if self.socket is None:
            raise ConnectionAbortedError("the connection is closed")
        received = bytearray(nr_bytes)
        done = 0
        with memoryview(received) as view:
            while done < nr_bytes:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"a PDU took longer than {self._timeout:g} s")
                self.socket.settimeout(left)
                count = self.socket.recv_into(view[done:])
                if count == 0:
                    break
                done += count
        return received if done == nr_bytes else received[:done]

    def send(self, bytestream: bytes) -> None:
        """Send; a peer that does not read is given as long as a PDU may take."""
        if self.socket is not None:
            self.socket.settimeout(self._timeout)
        super().send(bytestream)

    def descriptors(self) -> list[int]:
        """Return what to wait on for something to read; nothing once it is closed."""
        descriptor = -1 if self.socket is None else self.socket.fileno()
        return [] if descriptor < 0 else [descriptor]

    def discard(self) -> None:
        """Read away what has arrived, so that closing does not reset what was sent last."""
        if self.socket is None:
            return
        self.socket.settimeout(0)
        left = _LARGEST_DISCARD
        try:
            while left > 0 and (count := len(self.socket.recv(65536))):
                left -= count
        except OSError:  # nothing more, or the peer is gone
            return


class UpperLayer(DULServiceProvider):
    """Runs the state machine of one association in a thread.

    Parameters
    ----------
    largest
        Size announced for P-DATA.
    idle
        Seconds between messages after which the association is ended.
    told
        Told why the association is ended, if this side ends it.
    """

    def __init__(
        self, association: Association, *, largest: int, idle: float, told: Callable[[str], None]
    ) -> None:
        super().__init__(association)
        self._largest = largest
        self._idle = idle
        self._told = told
        self._ended = False
        self._active_at = time.monotonic()
        self._bell, self._button = socket.socketpair()
        self._bell.setblocking(False)
        self._button.setblocking(False)

    def send_pdu(self, primitive: Any) -> None:
        """Queue what is to be sent, and wake the thread that sends it."""
        super().send_pdu(primitive)
        with contextlib.suppress(OSError):  # rung already, or at its end
            self._button.send(b"!")

    @property
    def _messages(self) -> Messages:
        return cast("Messages", self.assoc.dimse)

    @property
    def _peer(self) -> PeerSocket:
        if not isinstance(self.socket, PeerSocket):
            raise ConnectionAbortedError("the connection is closed")
        return self.socket

    def cut(self, reason: str) -> None:
        """End the association with A-ABORT for a reason that is logged."""
        if not self._ended:
            self._ended = True
            self._told(reason)
            self.event_queue.put("Evt19")

    def run_reactor(self) -> None:
        """Run until the connection is closed."""
        self.assoc._dul_ready.set()  # noqa: SLF001 - as the library's own loop does
        try:
            while not self._kill_thread:
                self._turn()
        except FAULTS as error:
            if not self._ended:
                self._told(f"what the peer sent did not fit the state ({type(error).__name__})")
            with contextlib.suppress(OSError):
                self._peer.send(_A_P_ABORT)
            self.assoc.is_aborted = True
            self.assoc.is_established = False
            self.assoc._kill = True  # noqa: SLF001 - as the library's own loop does
        finally:
            self.state_machine.current_state = "Sta1"
            self.assoc.dimse.msg_queue.put((None, None))
            self._bell.close()
            self._button.close()

    def _turn(self) -> None:
        if self.artim_timer.expired:
            self.event_queue.put("Evt18")
        if self.event_queue.empty() and (self._process_recv_primitive() or self._is_transport_event()):
            self._active_at = time.monotonic()
        try:
            event = self.event_queue.get(block=False)
        except queue.Empty:
            self._rest()
            return
        self.state_machine.do_action(event)
        if event != "Evt6" and not self.to_user_queue.empty():  # an end waits in another queue than messages do
            self.assoc.dimse.msg_queue.put((None, None))

    def _rest(self) -> None:
        hungry = self._messages.hungry
        descriptors = self._peer.descriptors() if hungry else []
        ready, _, _ = select.select(
            [self._bell.fileno(), *descriptors], [], [], _PAUSE if hungry else _PAUSE / 10
        )
        if self._bell.fileno() in ready:
            self._bell.recv(4096)

    def _is_transport_event(self) -> bool:
        if self.state_machine.current_state == "Sta13":
            self._peer.discard()
            self._peer.close()
            return True
        if self._messages.busy:
            reason = self._messages.overdue(time.monotonic())
        else:
            quiet = time.monotonic() - max(self._active_at, self._messages.served_at)
            reason = f"nothing came for {quiet:.1f} s" if quiet > self._idle else None
        if reason:
            self.cut(reason)
            return True
        if not self._messages.hungry or not self._peer.ready:
            return False
        self._read_pdu_data()
        return True

    def _read_pdu_data(self) -> None:
        self._peer.begin_pdu()
        try:
            header = self._peer.recv(HEADER)
            if len(header) < HEADER:
                self.event_queue.put("Evt17")
                return
            kind, _, length = struct.unpack(">BBL", header)
            if reason := self._unacceptable(kind, length):
                self.cut(reason)
                return
            content = self._peer.recv(length)
        except TimeoutError as error:
            self.cut(str(error))
            return
        except OSError:
            self.event_queue.put("Evt17")
            return
        if len(content) < length:
            self.event_queue.put("Evt17")
            return
        try:
            pdu, event = self._decode_pdu(header + content)
        except FAULTS as error:
            self.cut(f"a PDU of type 0x{kind:02X} that cannot be decoded ({type(error).__name__})")
            return
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _unacceptable(self, kind: int, length: int) -> str | None:
        if kind == A_ASSOCIATE_RQ and self.state_machine.current_state == "Sta2":
            return None if length <= LARGEST_REQUEST else f"an association request of {length} bytes"
        if kind == _P_DATA:
            too_long = length > self._largest
            return f"a PDU of {length} bytes; at most {self._largest} were announced" if too_long else None
        if kind in _ONLY_FOUR_BYTES:
            return None if length == 4 else f"a PDU of type 0x{kind:02X} with {length} bytes instead of 4"
        return f"a PDU of type 0x{kind:02X} within an association"


def close_socket(connection: socket.socket) -> None:
    """Close a connection, whatever state it is in."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # the peer was faster
        pass
    finally:
        connection.close()
