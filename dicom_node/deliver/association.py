"""One association to a destination: opened or explained. Knows nothing of what is sent over it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import _config, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext

from dicom_node.deliver.answers import Meaning, judge_rejection
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.types import Destination

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
) -> Iterator[Association]:
    """Open an association in which at least one context was accepted; release it at the end.

    Parameters
    ----------
    contexts
        What is proposed, 1 to 128.
    timeout
        Longest wait, in seconds, for the connection and for each answer.

    Raises
    ------
    DestinationAwayError
        If it cannot be reached, does not answer, aborts, or rejects the association.
    DestinationRefusedError
        If it accepts none of the contexts or does not speak the protocol.
    """
    entity = ApplicationEntity(calling_ae_title)
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
            evt_handlers=[(evt.EVT_CONN_OPEN, on_open)],
        )
    except OSError as error:
        raise DestinationAwayError(
            f"{where(destination)}: {error.strerror or error}; check the host in its configuration"
        ) from error
    if not association.is_established:
        raise _explain(destination, association, contexts, calling_ae_title, timeout, connected=bool(connected))
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()
        raise
    if association.is_established:
        association.release()


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
    answer = association.acceptor.primitive
    if association.is_rejected and isinstance(answer, A_ASSOCIATE):
        meaning, reason = judge_rejection(answer.result or 0, answer.result_source or 0, answer.diagnostic or 0)
        text = (
            f"{name} rejected the association: {reason}; it must know the calling AE title "
            f"{calling_ae_title!r} and be called {destination.ae_title!r}"
        )
        return DestinationRefusedError(text) if meaning is Meaning.REFUSED else DestinationAwayError(text)
    if isinstance(answer, A_ASSOCIATE) and answer.result == 0:
        classes = ", ".join(sorted({str(context.abstract_syntax) for context in contexts}))
        return DestinationRefusedError(
            f"{name} accepted no presentation context; it must accept SOP class {classes} "
            "in Explicit or Implicit VR Little Endian"
        )
    if not connected:
        return DestinationAwayError(
            f"{name}: no connection within {timeout:g} s, or it was refused; check that it runs and that host "
            "and port are right"
        )
    return DestinationAwayError(
        f"{name} took the connection but did not accept an association within {timeout:g} s, or aborted it; "
        "check that this is a DICOM port"
    )
