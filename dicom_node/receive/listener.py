"""Sockets and threads of the SCP: where pynetdicom is bent to a hospital's network.

Owns what happens to a connection whatever the peer does: deadlines, sizes, cleaning up. Knows nothing of
who may associate or what becomes of a data set; that is given in as a `Host`.

What pynetdicom 3.0 does otherwise: accepted sockets have no timeout, so that a peer that stops inside a PDU
holds its threads for ever; the length in a PDU header is believed up to 4 GB; sockets are read 4096 bytes at
a time; some ends of an association fire no event.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from typing import Any, Protocol

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import DimsePrimitiveType
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from dicom_node.receive.staging import StagedDataSet

log = logging.getLogger(__name__)

LARGEST_REQUEST = 1024 * 1024
"""An A-ASSOCIATE-RQ with 128 contexts of 16 transfer syntaxes has about 150 kB."""


class Host(Protocol):
    """What the listener needs to be told and tells."""

    network_timeout: float
    maximum_pdu_size: int
    maximum_connections: int

    def stage(self, association: Association, message: DIMSEMessage) -> StagedDataSet:
        """Return the buffer for the data set of a message that begins."""

    def connected(self, association: Association) -> None:
        """A peer has connected; nothing is negotiated yet."""

    def connections(self) -> int:
        """Return how many connections are open."""

    def settled(self) -> None:
        """A message has been answered."""

    def gone(self, association: Association) -> None:
        """The association's thread has ended, in whatever way. Called exactly once for each connection."""


class PeerSocket(AssociationSocket):
    """Connection to a peer, with a deadline and a largest size for each PDU.

    The size covers what this node announced (PS3.8 section D.1) and the largest association request.
    """

    def __init__(self, association: Association, connection: Any, timeout: float, largest: int) -> None:
        super().__init__(association, client_socket=connection)
        self._timeout = timeout
        self._largest = largest

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, or fewer if the peer closes the connection.

        Raises
        ------
        OSError
            If the peer announces more than it may send, or stops in the middle.
        """
        if self.socket is None:
            raise ConnectionAbortedError("the connection is closed")
        if nr_bytes > self._largest:
            raise OSError(f"the peer announced a PDU of {nr_bytes} bytes; at most {self._largest} are read")
        deadline = time.monotonic() + self._timeout
        received = bytearray(nr_bytes)
        done = 0
        with memoryview(received) as view:
            while done < nr_bytes:
                count = self.socket.recv_into(view[done:])
                if count == 0:
                    break
                done += count
                if done < nr_bytes and time.monotonic() > deadline:
                    raise TimeoutError(f"a PDU took longer than {self._timeout} s")
        return received if done == nr_bytes else received[:done]


class StagingProvider(DIMSEServiceProvider):
    """DIMSE provider whose messages collect their data set in a buffer of ours."""

    def __init__(self, association: Association, host: Host) -> None:
        super().__init__(association)
        self._host = host
        self._unanswered = 0
        self._counting = threading.Lock()
        self._staged: set[StagedDataSet] = set()

    @property
    def busy(self) -> bool:
        """Whether a message is arriving or waits for its answer."""
        return self._unanswered > 0

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take in one P-DATA."""
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = staged = self._host.stage(self.assoc, self.message)
            self._staged.add(staged)
            with self._counting:
                self._unanswered += 1
        super().receive_primitive(primitive)

    def send_msg(self, primitive: DimsePrimitiveType, context_id: int) -> None:
        """Send an answer."""
        super().send_msg(primitive, context_id)
        with self._counting:
            self._unanswered -= 1
        self._host.settled()

    def forget(self, staged: StagedDataSet) -> None:
        """The handler is done with a data set."""
        self._staged.discard(staged)

    def discard_all(self) -> None:
        """Remove the files of data sets that no handler saw."""
        while self._staged:
            self._staged.pop().discard()


class ConnectionHandler(RequestHandler):
    """Runs one connection in a thread of its own, from accept to the very end."""

    server: Listener

    def handle(self) -> None:
        """Serve the association, wait for its end, clean up."""
        association = self._create_association()
        host = self.server.host
        host.connected(association)
        provider = association.dimse
        try:
            association.start()
            association.join()
        finally:
            if isinstance(provider, StagingProvider):
                provider.discard_all()
            host.gone(association)

    def _create_association(self) -> Association:
        host = self.server.host
        self.request.settimeout(host.network_timeout)
        association = super()._create_association()
        association.dul.event_queue.get_nowait()  # "connected", said by the socket that is replaced here
        association.dul.socket = PeerSocket(
            association,
            self.request,
            host.network_timeout,
            max(LARGEST_REQUEST, host.maximum_pdu_size + 6),
        )
        association.dimse = StagingProvider(association, host)
        return association


class Listener(ThreadedAssociationServer):
    """Listening socket. One thread accepts, one a connection waits for its end, two more serve it."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        handlers: list[EventHandlerType],
        host: Host,
    ) -> None:
        self.host = host
        super().__init__(
            entity,
            address,
            entity.ae_title,
            contexts,
            evt_handlers=handlers,
            request_handler=ConnectionHandler,
        )

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; answers leave at once instead of waiting for more to send."""
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Return whether one more connection can be held, negotiated or not."""
        return self.host.connections() < self.host.maximum_connections

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Log what ended a connection's thread early."""
        log.exception("connection dropped", extra={"peer_address": client_address[0]})

    def service_actions(self) -> None:
        """Leave garbage collection to Python."""

    def close(self) -> None:
        """Stop accepting and free the port. Open connections go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()


def close_connection(association: Association) -> None:
    """Close the connection of an association not negotiated yet; A-ABORT is not defined there (PS3.8 9.2)."""
    connection = association.dul.socket.socket if association.dul.socket else None
    if connection is not None:
        with contextlib.suppress(OSError):  # the peer was faster
            connection.shutdown(socket.SHUT_RDWR)
