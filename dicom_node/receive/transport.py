"""TLS on the listening side: the context, and what a peer must show of itself. Knows nothing of sockets' threads."""

from __future__ import annotations

import contextlib
import socket
import ssl
from dataclasses import dataclass

from dicom_node.config import Peer, ReceiveTls
from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import PeerCertificate
from dicom_node.receive.guard import CALLING, Rejection
from dicom_node.security.certificates import peer_certificate
from dicom_node.security.contexts import RenewedContext, server_context


@dataclass(frozen=True, slots=True)
class Transport:
    """How a request came.

    Attributes
    ----------
    tls
        Whether over TLS.
    certificate
        The verified certificate of the peer, if it showed one.
    """

    tls: bool = False
    certificate: PeerCertificate | None = None


class Secure:
    """Makes TLS connections of accepted ones.

    Parameters
    ----------
    config
        The `receive.tls` section, enabled.

    Raises
    ------
    CertificateError
        If its files cannot be used.
    """

    def __init__(self, config: ReceiveTls) -> None:
        files = config.files
        self._context = RenewedContext(files, lambda: server_context(files, config.client_certificates))

    def __call__(self, connection: socket.socket) -> ssl.SSLSocket:
        """Return a connection on which a handshake may begin; the given one is used up."""
        return self._context().wrap_socket(connection, server_side=True, do_handshake_on_connect=False)


def transport_of(connection: socket.socket) -> Transport:
    """Return how what was said on a connection came."""
    if not isinstance(connection, ssl.SSLSocket):
        return Transport()
    shown = connection.getpeercert(binary_form=True)
    certificate = None
    with contextlib.suppress(CertificateError):  # as if it had shown none
        certificate = peer_certificate(shown) if shown else None
    return Transport(True, certificate)


def check_transport(transport: Transport, peer: Peer | None) -> Rejection | None:
    """Return why a peer may not come this way, or None.

    Parameters
    ----------
    peer
        The known peer that calls; None for one that is not known, of whom nothing is asked.
    """
    if peer is None or peer.tls == "any":
        return None
    if not transport.tls:
        return _rejection(peer, "must come over TLS, to the port of receive.tls")
    if peer.tls == "required":
        return None
    shown = transport.certificate
    if shown is None:
        return _rejection(peer, "must show a certificate, and showed none")
    if peer.certificate_sha256 and shown.sha256 not in peer.certificate_sha256:
        return _rejection(
            peer, f"showed the certificate {shown.sha256}, which is not in its certificate_sha256"
        )
    names = {name.lower() for name in peer.certificate_names}
    if names and not names & (shown.names | {shown.subject.lower()}):
        told = ", ".join(sorted(shown.names)) or shown.subject
        return _rejection(peer, f"showed a certificate for {told}; none of that is in its certificate_names")
    return None


def _rejection(peer: Peer, why: str) -> Rejection:
    return Rejection(1, 1, CALLING, f"{peer.ae_title!r} {why}; see receive.peers")
