"""The listening port: a gate in front, and behind it two threads for each association that was let in.

Owns what becomes of a connection once its request was judged welcome, from the first thread to the last file
descriptor. Knows nothing of who may associate or what becomes of a data set; that is given in as a `Host`.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Protocol, cast

from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.events import EventHandlerType
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from dicom_node.receive.association import Link
from dicom_node.receive.contexts import supported_contexts
from dicom_node.receive.gate import Doorman, Gate
from dicom_node.receive.messages import Messages
from dicom_node.receive.staging import StagedDataSet
from dicom_node.receive.upper_layer import FAULTS, PeerSocket, UpperLayer, close_socket

_AFTER_THE_END = 5.0
"""Seconds that the state machine may wait for a peer to close (ARTIM, PS3.8 section 9.1.5)."""


class Host(Doorman, Protocol):
    """What the listener needs to be told and tells."""

    network_timeout: float
    idle_timeout: float
    minimum_bytes_per_second: int
    maximum_pdu_size: int

    def stage(self, link: Link, message: DIMSEMessage) -> StagedDataSet:
        """Return the buffer for the data set of a message that begins."""

    def settled(self) -> None:
        """A message has been answered."""

    def gone(self, link: Link) -> None:
        """The association has ended, in whatever way. Called exactly once for each that was let in."""


class ConnectionHandler(RequestHandler):
    """Serves one association in the thread it is called in, from its request to the very end."""

    server: Listener

    def __init__(self, connection: Any, peer: Any, server: Listener, first: bytes, link: Link) -> None:
        self._first = first
        self._link = link
        super().__init__(connection, peer, server)

    @property
    def local(self) -> AddressInformation:
        """The address listened on, resolved once."""
        return self.server.local

    def handle(self) -> None:
        """Serve the association, wait for its end, clean up."""
        host = self.server.host
        association = None
        try:
            association = self._create_association()
            self._link.association = association
            association.run()
            association.dul.join()
        except FAULTS as error:  # its text might quote what the peer sent
            host.refused(
                "association aborted",
                self._link.facts.peer_address,
                f"cannot be served ({type(error).__name__})",
            )
        finally:
            close_socket(self.request)
            if association is not None and isinstance(association.dimse, Messages):
                association.dimse.discard_all()
            host.gone(self._link)

    def _create_association(self) -> Association:
        host = self.server.host
        association = super()._create_association()

        def cut(reason: str) -> None:
            host.refused("association aborted", self._link.facts.peer_address, reason)

        layer = UpperLayer(association, largest=host.maximum_pdu_size, idle=host.idle_timeout, told=cut)
        association.dul = layer
        layer.socket = PeerSocket(association, self.request, host.network_timeout, self._first)
        association.dimse = Messages(
            association,
            self._link,
            stage=lambda message: host.stage(self._link, message),
            settled=host.settled,
            cut=layer.cut,
            stall=host.network_timeout,
            least=host.minimum_bytes_per_second * host.network_timeout,
        )
        association.acse_timeout = _AFTER_THE_END
        association.network_timeout = None  # the upper layer here minds the time
        association.acceptor.supported_contexts = supported_contexts(self._link.admission.sop_classes)
        return association


class Listener(ThreadedAssociationServer):
    """Listening socket. One thread accepts and holds what has not associated yet, two serve each association.

    Parameters
    ----------
    secure
        Wraps accepted connections for TLS without shaking hands; None for a plain port.
    """

    request_queue_size = 128

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        handlers: list[EventHandlerType],
        host: Host,
        secure: Callable[[socket.socket], ssl.SSLSocket] | None = None,
    ) -> None:
        self.host = host
        super().__init__(entity, address, entity.ae_title, [], evt_handlers=handlers)
        self.local = AddressInformation.from_tuple(self.server_address)
        self._gate = Gate(cast("socket.socket", self.socket), host, self._serve, secure)
        self._thread = threading.Thread(target=self._gate.serve, name="scp", daemon=True)

    @property
    def waiting(self) -> int:
        """How many connections have not associated yet."""
        return self._gate.waiting

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

    def close(self) -> None:
        """Stop accepting, close what has not associated, free the port. Associations go on."""
        self._gate.stop()
        self._thread.join()
        self.server_close()

    def _serve(self, connection: socket.socket, peer: tuple[Any, ...], first: bytes, link: Link) -> None:
        def serve() -> None:
            ConnectionHandler(connection, peer, self, first, link)

        try:
            threading.Thread(target=serve, name=f"association-{link.id}", daemon=True).start()
        except RuntimeError:  # no more threads
            close_socket(connection)
            self.host.refused("connection refused", link.facts.peer_address, "no thread is left to serve it")
            self.host.gone(link)
