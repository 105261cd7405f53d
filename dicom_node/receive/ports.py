"""The listening ports: in the clear, for TLS, or both. Owns opening and closing them together."""

from __future__ import annotations

from collections.abc import Sequence

from pynetdicom.ae import ApplicationEntity
from pynetdicom.events import EventHandlerType

from dicom_node.config import Receive
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.receive.listener import Host, Listener
from dicom_node.receive.transport import Secure


class Ports:
    """The ports of one SCP.

    Parameters
    ----------
    handlers
        Of pynetdicom's events on each association.
    host
        What the listeners ask and tell.
    """

    def __init__(self, config: Receive, handlers: Sequence[EventHandlerType], host: Host) -> None:
        self._config = config
        self._handlers = list(handlers)
        self._host = host
        self._listeners: list[Listener] = []

    def open(self) -> None:
        """Bind every port, then listen.

        Raises
        ------
        OutOfResourcesError
            If an address cannot be bound.
        CertificateError
            If the files of `receive.tls` cannot be used.
        """
        tls = self._config.tls
        secure = Secure(tls) if tls.enabled else None
        try:
            if self._config.plain:
                self._listeners.append(self._bind(self._config.port, "receive.port", None))
            if secure is not None:
                self._listeners.append(self._bind(tls.port, "receive.tls.port", secure))
        except OutOfResourcesError:
            for listener in self._listeners:
                listener.server_close()
            self._listeners = []
            raise
        for listener in self._listeners:
            listener.start()

    def close(self) -> bool:
        """Stop accepting and free the ports; return whether any was open. Associations go on."""
        closed, self._listeners = self._listeners, []
        for listener in closed:
            listener.close()
        return bool(closed)

    @property
    def waiting(self) -> int:
        """How many connections have not associated yet."""
        return sum(listener.waiting for listener in self._listeners)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each, the one in the clear first.

        Raises
        ------
        OutOfResourcesError
            If none is open.
        """
        if not self._listeners:
            raise OutOfResourcesError("the SCP is not listening; start it first")
        return [(str(one.server_address[0]), int(one.server_address[1])) for one in self._listeners]

    def _bind(self, port: int, key: str, secure: Secure | None) -> Listener:
        entity = ApplicationEntity(self._config.ae_title)
        entity.maximum_pdu_size = self._config.maximum_pdu_size
        entity.maximum_associations = (
            2 * self._config.max_associations
        )  # the limit that peers meet is the guard's
        address = (self._config.host, port)
        try:
            return Listener(entity, address, self._handlers, self._host, secure)
        except OSError as error:
            raise OutOfResourcesError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}; "
                f"set receive.host and {key} to an address that is free"
            ) from error
