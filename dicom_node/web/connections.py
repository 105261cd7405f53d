"""Bounds on connections before anybody has asked anything: how many there are, and how long one may take to ask.

uvicorn bounds requests only; whoever connects and says nothing would hold a descriptor, of which receiving has need.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 200
"""Open at a time; more are closed as they come."""
CROWD = 150
"""From so many on, whoever has waited longest to ask something makes way for who comes."""
HEAD_SECONDS = 15.0
"""A connection brings the whole head of a request within that time, or is closed."""
_UNREAD_MILLISECONDS = 60_000


@dataclass(slots=True)
class _Guest:
    connection: socket.socket
    address: Any
    leaving: bool = False


class Door(socket.socket):
    """A listening socket that holds a bounded number of connections.

    Parameters
    ----------
    family
        Of its addresses.
    most
        Connections at a time.

    Attributes
    ----------
    agreed
        Returns (host, port) of those that have agreed on TLS; None where there is none. In a crowd, whoever has taken
        longest to agree makes way: the server knows nothing of him yet.
    """

    agreed: Callable[[], Collection[Any]] | None = None

    def __init__(self, family: socket.AddressFamily, most: int = CONNECTIONS) -> None:
        super().__init__(family, socket.SOCK_STREAM)
        self._most = most
        self._inside: list[_Guest] = []
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What is accepted inherits it: a browser that reads nothing for so long is hung up on.
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Raises ConnectionAbortedError where it is one too many, and is closed."""
        connection, address = super().accept()
        self._inside = [one for one in self._inside if one.connection.fileno() != -1]
        if self.agreed is not None and len(self._inside) >= CROWD:
            self._make_room(self.agreed())
        if len(self._inside) >= self._most:
            connection.close()
            raise ConnectionAbortedError("as many connections as may be")
        self._inside.append(_Guest(connection, address))
        return connection, address

    def _make_room(self, agreed: Collection[Any]) -> None:
        for one in self._inside:
            if not one.leaving and one.address[:2] not in agreed:
                one.leaving = True
                with suppress(OSError):  # gone by itself
                    one.connection.shutdown(socket.SHUT_RDWR)  # whose it is closes it then
                return


class Hasty(H11Protocol):
    """HTTP/1.1 with a limit on the time that the head of a request takes."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > CROWD:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a head that is whole ends the wait, and one that has begun starts it."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._no_longer()
        elif self._due is None and (before is None or before.response_complete):
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._no_longer()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        others = [one for one in self.connections if isinstance(one, Hasty) and one is not self]
        waiting = [(since, one) for one in others if (since := one.waits_since()) is not None]
        if waiting:
            min(waiting, key=lambda pair: pair[0])[1].transport.abort()

    def waits_since(self) -> float | None:
        """Return since when nothing is asked, in the loop's seconds; None while a request is answered."""
        if self._due is not None:
            return self._due.when() - HEAD_SECONDS
        idle = self.timeout_keep_alive_task
        return None if idle is None else idle.when() - self.timeout_keep_alive

    def _await_head(self) -> None:
        self._due = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _no_longer(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
