"""Connections before the association: one thread accepts and holds them all until their request is complete.

Owns what has said nothing yet, or is being refused. A connection that waits here costs a socket and a few bytes,
no thread; its time runs from accept, however its request trickles in. Knows no rules: a `Doorman` is asked.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, cast

from dicom_node.receive.arrival import Arrival, Stage, no_request
from dicom_node.receive.guard import Rejection, Request
from dicom_node.receive.request import MalformedRequestError, parse
from dicom_node.receive.upper_layer import close_socket
from dicom_node.security.faults import explain_client

A_ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
"""A-ABORT of the service user: what PS3.8 table 9-10 answers to anything but an association request."""

_TICK = 0.1
_LINGER = 1.0
_GRACE = 1.0
_MOST_ENDING = 64
_ENOUGH = 64 * 1024
_NO_DESCRIPTOR = 0.1


class Doorman(Protocol):
    """What the gate asks and tells."""

    association_timeout: float
    maximum_connections: int
    maximum_connections_per_address: int

    def check_address(self, address: str) -> Rejection | None:
        """Return why nobody from there is listened to."""

    def connections_from(self, address: str) -> int:
        """Return how many associations are open from there."""

    def judge(self, request: Request, connection: socket.socket) -> Any:
        """Return a Rejection, or what `hand_over` needs; that place is then taken."""

    def refused(self, message: str, address: str, reason: str) -> None:
        """Take note of a refusal."""

    def rejected(self, request: Request, why: str) -> None:
        """Take note of an association that is rejected."""

    def tick(self) -> None:
        """Do what is to be done now and then."""


class Gate:
    """Holds connections of one listening socket.

    Parameters
    ----------
    hand_over
        Takes a connection whose request was judged welcome: connection, peer, request bytes, what `judge`
        returned. May raise RuntimeError if it has no thread for it.
    secure
        Wraps a connection for TLS without shaking hands; None for plain connections.
    """

    def __init__(
        self,
        listening: socket.socket,
        doorman: Doorman,
        hand_over: Callable[[socket.socket, tuple[Any, ...], bytes, Any], None],
        secure: Callable[[socket.socket], ssl.SSLSocket] | None = None,
    ) -> None:
        self._listening = listening
        self._doorman = doorman
        self._hand_over = hand_over
        self._secure = secure
        self._selector = selectors.DefaultSelector()
        self._arrivals: dict[Arrival, None] = {}  # in the order in which they came
        self._accept_again = 0.0
        self._stop = False

    @property
    def waiting(self) -> int:
        """How many connections wait here."""
        return len(self._arrivals)

    def stop(self) -> None:
        """Let `serve` end soon."""
        self._stop = True

    def serve(self) -> None:
        """Accept and hold connections until `stop`; then close those that are held."""
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)
        try:
            while not self._stop:
                for key, _ in self._selector.select(_TICK):
                    if key.data is None:
                        self._accept()
                    else:
                        self._go_on(key.data)
                self._end_late()
                self._doorman.tick()
        finally:
            for arrival in list(self._arrivals):
                self._close(arrival)
            self._selector.close()

    def _accept(self) -> None:
        if time.monotonic() < self._accept_again:
            return
        try:
            connection, peer = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if not self._stop:
                self._accept_again = time.monotonic() + _NO_DESCRIPTOR
                self._doorman.refused("connection refused", "", f"cannot accept: {error.strerror or error}")
                self._make_room()
            return
        address = str(peer[0])
        now = time.monotonic()
        refusal = self._doorman.check_address(address)
        if refusal is not None and self._secure is not None:
            connection.close()
            self._doorman.refused("connection refused", address, refusal.why)
            return
        stage = Stage.REQUEST
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._secure is not None:
                connection = self._secure(connection)
                stage = Stage.HANDSHAKE
        except OSError:  # gone already
            connection.close()
            return
        if refusal is None:
            refusal = self._room_for(address)
        arrival = Arrival(connection, peer, now + self._doorman.association_timeout, stage, refusal)
        self._arrivals[arrival] = None
        self._selector.register(connection, selectors.EVENT_READ, arrival)

    def _full(self, address: str) -> Rejection | None:
        most = self._doorman.maximum_connections_per_address
        associated = self._doorman.connections_from(address)
        if associated < most:
            return None
        return Rejection(
            2, 3, 2, f"{associated} associations from {address}; receive.max_connections_per_address is {most}"
        )

    def _room_for(self, address: str) -> Rejection | None:
        if refusal := self._full(address):
            return refusal
        most = self._doorman.maximum_connections_per_address
        associated = self._doorman.connections_from(address)
        waiting = [arrival for arrival in self._arrivals if arrival.stage is not Stage.ENDING]
        here = [arrival for arrival in waiting if arrival.address == address]
        for arrival in here[: max(0, associated + len(here) + 1 - most)]:
            if arrival.deadline - self._doorman.association_timeout < time.monotonic() - _GRACE:
                self._make_way(arrival)
        if len(waiting) >= self._doorman.maximum_connections:
            self._make_room()
        return None

    def _make_room(self) -> None:
        """End the oldest connection that waits, of the address with most of them."""
        waiting = [arrival for arrival in self._arrivals if arrival.stage is not Stage.ENDING]
        addresses = Counter(arrival.address for arrival in waiting)
        if waiting:
            crowd = max(addresses, key=addresses.__getitem__)
            self._make_way(next(arrival for arrival in waiting if arrival.address == crowd))

    def _make_way(self, arrival: Arrival) -> None:
        self._doorman.refused(
            "connection refused", arrival.address, "made way for a newer one before its request was complete"
        )
        self._close(arrival)

    def _go_on(self, arrival: Arrival) -> None:
        if arrival not in self._arrivals:
            return
        try:
            if arrival.stage is Stage.HANDSHAKE:
                self._shake_hands(arrival)
            if arrival.stage is Stage.REQUEST:
                self._read_request(arrival)
            elif arrival.stage is Stage.ENDING:
                self._drain(arrival)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(arrival.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, arrival)
        except ssl.SSLError as error:
            self._doorman.refused("connection refused", arrival.address, f"TLS: {explain_client(error)}")
            self._close(arrival)
        except OSError:  # the peer reset the connection
            self._close(arrival)

    def _shake_hands(self, arrival: Arrival) -> None:
        cast("ssl.SSLSocket", arrival.connection).do_handshake()
        self._selector.modify(arrival.connection, selectors.EVENT_READ, arrival)
        arrival.stage = Stage.REQUEST

    def _read_request(self, arrival: Arrival) -> None:
        while arrival.needed:
            received = arrival.connection.recv(arrival.needed)
            if not received:
                if arrival.data:
                    self._doorman.refused("connection refused", arrival.address, "closed within its request")
                self._close(arrival)
                return
            arrival.data += received
            if reason := no_request(arrival.data):
                self._end(arrival, A_ABORT, reason)
                return
        self._judge(arrival)

    def _judge(self, arrival: Arrival) -> None:
        pdu = bytes(arrival.data)
        try:
            said = parse(pdu)
        except MalformedRequestError as error:
            self._end(arrival, A_ABORT, f"malformed association request: {error}")
            return
        request = Request(
            said.calling,
            said.called,
            arrival.address,
            said.proposes,
            said.application_context,
            said.protocol_version,
        )
        verdict = (
            arrival.refusal or self._full(arrival.address) or self._doorman.judge(request, arrival.connection)
        )
        if isinstance(verdict, Rejection):
            self._doorman.rejected(request, verdict.why)
            answer = struct.pack(">BBLBBBB", 3, 0, 4, 0, verdict.result, verdict.source, verdict.reason)
            self._end(arrival, answer)
            return
        self._selector.unregister(arrival.connection)
        del self._arrivals[arrival]
        self._hand_over(arrival.connection, arrival.peer, pdu, verdict)

    def _end(self, arrival: Arrival, answer: bytes, reason: str = "") -> None:
        if reason:
            self._doorman.refused("connection refused", arrival.address, reason)
        arrival.connection.send(answer)
        if sum(other.stage is Stage.ENDING for other in self._arrivals) >= _MOST_ENDING:
            self._close(arrival)
            return
        arrival.connection.shutdown(
            socket.SHUT_WR
        )  # the peer closes; a close from here could overtake the answer
        arrival.stage = Stage.ENDING
        arrival.deadline = time.monotonic() + _LINGER
        arrival.data.clear()

    def _drain(self, arrival: Arrival) -> None:
        received = arrival.connection.recv(16384)
        arrival.data.extend(bytes(1) * (len(received) // 1024))
        if not received or len(arrival.data) > _ENOUGH // 1024:
            self._close(arrival)

    def _end_late(self) -> None:
        now = time.monotonic()
        for arrival in [a for a in self._arrivals if a.deadline < now]:
            if arrival.stage is not Stage.ENDING:
                reason = f"no complete association request after {self._doorman.association_timeout:g} s"
                self._doorman.refused("connection refused", arrival.address, reason)
            self._close(arrival)

    def _close(self, arrival: Arrival) -> None:
        self._arrivals.pop(arrival, None)
        self._selector.unregister(arrival.connection)
        close_socket(arrival.connection)
