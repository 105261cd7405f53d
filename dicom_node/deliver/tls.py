"""TLS on the calling side. Owns the socket of an association over TLS; knows nothing of what is sent over it.

What pynetdicom 3.0 does otherwise: it connects without a deadline for the handshake, tells an error of TLS only
to its log, and waits for bytes of the application where only TLS itself has something to say.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.transport import T_CONNECT, AddressInformation, AssociationSocket

from dicom_node.domain.types import Destination
from dicom_node.security.channel import TlsChannel
from dicom_node.security.faults import explain_server


class TlsSocket(AssociationSocket):
    """Connection to a destination over TLS.

    Attributes
    ----------
    reached
        Whether it took the connection.
    fault
        What ended TLS, if anything did.
    """

    reached = False
    fault: OSError | ValueError | None = None

    def connect(self, primitive: T_CONNECT) -> None:
        """Connect and shake hands, each within the connection timeout."""
        try:
            self._connect(primitive)
            primitive.result = "Evt2"
        except (OSError, ValueError) as error:  # ValueError: a server name that cannot be one
            self.fault = error
            if self.socket is not None:
                self.socket.close()
                self.socket = None
            primitive.result = "Evt17"
        finally:
            self.provider_queue.put(primitive)
            self._ready.set()

    def _connect(self, primitive: T_CONNECT) -> None:
        if self.socket is None or self.tls_args is None:
            raise ConnectionAbortedError("the connection is closed")
        context, server_name = self.tls_args
        self.socket.settimeout(self.assoc.connection_timeout)
        self.socket.connect(primitive.address_info.as_tuple)
        self.reached = True
        channel = context.wrap_socket(self.socket, server_hostname=server_name, do_handshake_on_connect=False)
        self.socket = channel
        channel.do_handshake()
        self.assoc.requestor.address_info = AddressInformation.from_tuple(channel.getsockname())
        self._is_connected = True
        evt.trigger(self.assoc, evt.EVT_CONN_OPEN, {"address": primitive.address_info.as_tuple})

    @property
    def ready(self) -> bool:
        """Whether a read would return at once."""
        if not super().ready:
            return False
        return not isinstance(self.socket, TlsChannel) or self.socket.readable()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`; fewer at the end of the connection, or where TLS fails."""
        try:
            return super().recv(nr_bytes)
        except ssl.SSLError as error:
            self.fault = error
            return bytearray()

    def _shutdown_socket(self) -> None:
        if isinstance(self.socket, TlsChannel):
            self.socket.say_end()
        super()._shutdown_socket()


class TlsEntity(ApplicationEntity):
    """A client whose associations are made over TLS."""

    def _create_socket(
        self, assoc: Association, address: AddressInformation, tls_args: tuple[ssl.SSLContext, str] | None
    ) -> AssociationSocket:
        made = TlsSocket(assoc, address=address)
        made.tls_args = tls_args
        return made


def explain(destination: Destination, association: Association, timeout: float) -> str | None:
    """Return why there is no TLS with a destination that took the connection; None if TLS is not the reason."""
    used = association.dul.socket
    if not isinstance(used, TlsSocket) or used.fault is None or not used.reached:
        return None
    shown = None
    if isinstance(used.fault, ssl.SSLCertVerificationError):
        shown = _shown_certificate(destination, timeout)
    return explain_server(used.fault, destination.security.server_name, shown)


def _shown_certificate(destination: Destination, timeout: float) -> bytes | None:
    # Only to say what is wrong with it: nothing is sent over this connection.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    name = destination.security.server_name
    with (
        contextlib.suppress(OSError),
        socket.create_connection((destination.host, destination.port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=name) as channel,
    ):
        return channel.getpeercert(binary_form=True)
    return None
