"""One association to a destination: opened or explained. Knows nothing of what is sent over it."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.events import EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE, SCP_SCU_RoleSelectionNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import PresentationContext

from dicom_node.deliver import tls, turnstile
from dicom_node.deliver.answers import Meaning, judge_rejection
from dicom_node.domain.errors import (
    CertificateError,
    DestinationAwayError,
    DestinationRefusedError,
    NotOfferedError,
)
from dicom_node.domain.types import Destination
from dicom_node.security.contexts import client_context
from dicom_node.security.secret_files import read_secret

# pynetdicom's own handlers would format every message for its log, data sets included.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)


def where(destination: Destination) -> str:
    """Return the destination's name, title and address, for messages."""
    return f"{destination.name} ({destination.ae_title} at {destination.host}:{destination.port})"


@contextmanager
def associated(
    destination: Destination,
    contexts: Sequence[PresentationContext],
    *,
    calling_ae_title: str,
    timeout: float,
    maximum_pdu_size: int,
    handlers: Sequence[EventHandlerType] = (),
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """Open an association in which at least one context was accepted; release it at the end.

    Parameters
    ----------
    contexts
        What is proposed, 1 to 128.
    timeout
        Longest wait, in seconds, for the connection and for each answer.
    handlers
        Called for what the peer sends of itself, as pynetdicom's event handlers.
    roles
        Proposed where this side is not the user of a service.

    Raises
    ------
    DestinationAwayError
        If it cannot be reached, does not answer, aborts, or rejects the association.
    NotOfferedError
        If it accepts none of the contexts.
    DestinationRefusedError
        If it does not speak the protocol, or rejects the association for good.
    """
    try:
        tls_args, identity = _tls_args(destination), _identity(destination)
    except CertificateError as error:
        raise DestinationAwayError(f"{where(destination)}: {error}") from error
    entity = ApplicationEntity(calling_ae_title) if tls_args is None else tls.TlsEntity(calling_ae_title)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = timeout
    entity.network_timeout = timeout
    connected: list[bool] = []

    def on_open(event: evt.Event) -> None:
        connected.append(True)
        _set_deadline(event.assoc, timeout)

    try:
        association = entity.associate(
            destination.host,
            destination.port,
            contexts=list(contexts),
            ae_title=destination.ae_title,
            max_pdu=maximum_pdu_size,
            ext_neg=[*identity, *roles],
            tls_args=tls_args,
            evt_handlers=[(evt.EVT_CONN_OPEN, on_open), *handlers],
        )
    except OSError as error:
        raise DestinationAwayError(
            f"{where(destination)}: {error.strerror or error}; check the host in its configuration"
        ) from error
    if not association.is_established:
        raise _explain(destination, association, contexts, calling_ae_title, timeout, connected=bool(connected))
    turnstile.install(association)
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    if association.is_established:
        _release(association, timeout)


def _release(association: Association, timeout: float) -> None:
    # pynetdicom waits for ever where it serves a request of the peer's own at this very moment.
    too_late = threading.Timer(timeout, association.abort)
    too_late.daemon = True
    too_late.start()
    try:
        association.release()
    finally:
        too_late.cancel()


def _tls_args(destination: Destination) -> tuple[ssl.SSLContext, str] | None:
    # The files are read for each association, so that a renewed certificate is used by the next one.
    security = destination.security
    return None if security.tls is None else (client_context(security.tls), security.server_name)


def _identity(destination: Destination) -> list[UserIdentityNegotiation]:
    security = destination.security
    if not security.username:
        return []
    item = UserIdentityNegotiation()
    item.user_identity_type = 1
    item.primary_field = security.username.encode()
    if security.passcode_file is not None:
        item.user_identity_type = 2
        item.secondary_field = read_secret(security.passcode_file)
    return [item]


def _set_deadline(association: Association, timeout: float) -> None:
    # Without one a peer that stops reading would hold this thread for ever.
    connection = association.dul.socket.socket if association.dul.socket else None
    if connection is not None:
        connection.settimeout(timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _explain(
    destination: Destination,
    association: Association,
    contexts: Sequence[PresentationContext],
    calling_ae_title: str,
    timeout: float,
    *,
    connected: bool,
) -> DestinationAwayError | DestinationRefusedError:
    name = where(destination)
    # A rejection may be read, and the connection closed, before the thread that asked for it has looked.
    answer = association.acceptor.primitive or association.dul.peek_next_pdu()
    if isinstance(answer, A_ASSOCIATE) and answer.result:
        meaning, reason = judge_rejection(answer.result or 0, answer.result_source or 0, answer.diagnostic or 0)
        text = (
            f"{name} rejected the association: {reason}; it must know the calling AE title "
            f"{calling_ae_title!r} and be called {destination.ae_title!r}"
        )
        if destination.security.username:
            text += f", and know the user {destination.security.username!r} by this passcode"
        return DestinationRefusedError(text) if meaning is Meaning.REFUSED else DestinationAwayError(text)
    if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
        classes = ", ".join(sorted({str(context.abstract_syntax) for context in contexts}))
        return NotOfferedError(
            f"{name} accepted no presentation context; it must accept SOP class {classes} "
            "in Explicit or Implicit VR Little Endian"
        )
    if fault := tls.explain(destination, association, timeout):
        return DestinationAwayError(f"{name}: {fault}")
    if not connected:
        return DestinationAwayError(
            f"{name}: no connection within {timeout:g} s, or it was refused; check that it runs and that host "
            "and port are right"
        )
    files = destination.security.tls
    # With TLS 1.3 a server says that it wanted a certificate when the handshake is over, if at all.
    bare = ", and whether it asks for a client certificate: none is configured"
    return DestinationAwayError(
        f"{name} took the connection but did not accept an association within {timeout:g} s, or aborted it; "
        f"check that this is a DICOM port{bare if files is not None and files.certificate is None else ''}"
    )
