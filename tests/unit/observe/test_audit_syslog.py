"""Messages reach a syslog server as RFC 5424 over TLS (RFC 5425) and UDP (RFC 5426)."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_node.domain.audit import AssociationRejected, AuditLogUsed, Party
from dicom_node.domain.security import TlsFiles
from dicom_node.observe.audit_message import AuditSource, message, to_xml
from dicom_node.observe.audit_syslog import SyslogSender, frame
from dicom_node.security.contexts import client_context, server_context
from tests.authority import Authority

AT = datetime(2026, 1, 2, tzinfo=UTC)
SOURCE = AuditSource("N", "", "DICOMNODE", "host:1", "host")
TOLD = message(AuditLogUsed(AT, "Jürgen"), SOURCE)


class TlsServer:
    """Takes octet-counted messages, one connection after the other."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.context = context
        self.got: list[bytes] = []
        self.came = threading.Semaphore(0)
        self.connections: list[ssl.SSLSocket] = []
        self.hung_up = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                plain, _ = self.listening.accept()
            except OSError:
                return
            try:
                connection = self.context.wrap_socket(plain, server_side=True)
                self.connections.append(connection)
                self._read(connection)
            except OSError:
                plain.close()
            self.hung_up.set()

    def _read(self, connection: ssl.SSLSocket) -> None:
        file = connection.makefile("rb")
        while digits := re.match(rb"(\d+) ", file.peek(20)):
            file.read(len(digits[0]))
            self.got.append(file.read(int(digits[1])))
            self.came.release()

    def hang_up(self) -> None:
        connection = self.connections[-1]
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert self.hung_up.wait(10)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def server(authority: Authority) -> Iterator[TlsServer]:
    server = TlsServer(server_context(authority.files("localhost", "localhost"), "required"))
    yield server
    server.listening.close()


def sender(server: TlsServer, files: TlsFiles, host: str = "localhost") -> SyslogSender:
    return SyslogSender((host, server.port), 10.0, client_context(files))


def test_a_message_has_the_header_of_the_audit_profile() -> None:
    content = frame(TOLD, "ho st\nü", 42)
    header, _, body = content.partition(b"\xef\xbb\xbf")
    assert header == b"<85>1 2026-01-02T00:00:00.000+00:00 ho-st-- dicom-node 42 DICOM+RFC3881 - "
    assert body == to_xml(TOLD)
    failed = message(AssociationRejected(AT, Party("A", "10.0.0.1"), "X", "no"), SOURCE)
    assert frame(failed, "h", 1).startswith(b"<84>1 "), "what failed is a warning"


def test_messages_come_over_tls_with_their_length_before_them(server: TlsServer, authority: Authority) -> None:
    sending = sender(server, authority.files("node"))
    for _ in range(3):
        sending.send(TOLD)
    assert all(server.came.acquire(timeout=10) for _ in range(3))
    sending.close()
    assert [content.partition(b"\xef\xbb\xbf")[2] for content in server.got] == [to_xml(TOLD)] * 3
    assert len(server.connections) == 1


def test_a_server_that_has_hung_up_is_connected_to_again_without_a_loss(
    server: TlsServer, authority: Authority
) -> None:
    sending = sender(server, authority.files("node"))
    sending.send(TOLD)
    assert server.came.acquire(timeout=10)
    server.hang_up()
    sending.send(TOLD)
    assert server.came.acquire(timeout=10)
    assert len(server.got) == len(server.connections) == 2
    sending.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_that_cannot_prove_its_name_gets_nothing(
    server: TlsServer, authority: Authority, tmp_path: Path, host: str
) -> None:
    files = authority.files("node") if host == "127.0.0.1" else Authority(tmp_path / "other").files("node")
    with pytest.raises(ssl.SSLCertVerificationError):
        sender(server, files, host).send(TOLD)
    assert server.got == []


def test_a_server_that_is_away_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        SyslogSender(("127.0.0.1", port), 10.0, ssl.create_default_context()).send(TOLD)


def test_a_message_is_one_datagram_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        sending: Any = SyslogSender(("127.0.0.1", server.getsockname()[1]), 10.0, None)
        sending.send(TOLD)
        content = server.recv(65_535)
        sending.close()
    assert content.startswith(b"<85>1 ")
    assert content.endswith(to_xml(TOLD))
