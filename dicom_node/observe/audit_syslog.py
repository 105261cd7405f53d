"""Sends audit messages to a syslog server (PS3.15 A.6 and A.7): RFC 5424 over TLS (RFC 5425) or UDP (RFC 5426).

Owns the connection and nothing else; what to send, and what to do when it fails, is its caller's.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from dicom_node.observe.audit_message import to_xml

_SECURITY = 10  # facility "security/authorization messages", RFC 5424 table 1
_NOTICE, _WARNING = 5, 4
_MESSAGE_ID = "DICOM+RFC3881"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def frame(told: Mapping[str, Any], host: str, process: int) -> bytes:
    """Return a message as RFC 5424 has it: header, no structured data, the XML in UTF-8."""
    identification = told["EventIdentification"]
    severity = _NOTICE if identification["EventOutcomeIndicator"] == "0" else _WARNING
    name = "".join(c if c.isascii() and c.isprintable() and c != " " else "-" for c in host)[:255] or "-"
    priority, at = _SECURITY * 8 + severity, identification["EventDateTime"]
    header = f"<{priority}>1 {at} {name} dicom-node {process} {_MESSAGE_ID} - "
    return header.encode("ascii") + _BYTE_ORDER_MARK + to_xml(told)


class SyslogSender:
    """One connection to the server, opened when it is first needed and again after a failure.

    Parameters
    ----------
    address
        Host name and port of the server.
    timeout
        Longest wait, in seconds, for the connection and for each message.
    context
        What secures the connection; None sends datagrams in the clear.
    """

    def __init__(self, address: tuple[str, int], timeout: float, context: ssl.SSLContext | None) -> None:
        self._address = address
        self._timeout = timeout
        self._context = context
        self._socket: socket.socket | None = None
        self._host = socket.gethostname()

    def send(self, told: Mapping[str, Any]) -> None:
        """Send one message.

        With TLS it has reached this machine's network, not yet the server's disk: the protocol has no answer. A
        connection that the server has closed is noticed before, not after.

        Raises
        ------
        OSError
            If the server cannot be reached, or its certificate is not accepted.
        """
        content = frame(told, self._host, os.getpid())
        try:
            if self._socket is not None and self._closed_by_peer(self._socket):
                self.close()
            if self._socket is None:
                self._socket = self._connect()
            self._socket.sendall(content if self._context is None else b"%d %b" % (len(content), content))
        except OSError:
            self.close()
            raise

    def probe(self) -> None:
        """Connect, as far as the protocol has a connection.

        Raises
        ------
        OSError
            As `send`.
        """
        self._connect().close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> socket.socket:
        host, port = self._address
        if self._context is None:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            plain = socket.socket(family, kind, protocol)
            plain.connect(address)
            return plain
        connection = socket.create_connection((host, port), self._timeout)
        try:
            return self._context.wrap_socket(connection, server_hostname=host)
        except OSError:
            connection.close()
            raise

    def _closed_by_peer(self, connection: socket.socket) -> bool:
        if self._context is None:
            return False
        connection.settimeout(0)
        try:
            return connection.recv(1) == b""
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        finally:
            connection.settimeout(self._timeout)
