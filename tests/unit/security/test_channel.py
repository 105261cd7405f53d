"""What can be read from a TLS connection, told without waiting."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.domain.security import TlsFiles
from dicom_node.security.channel import TlsChannel
from dicom_node.security.contexts import client_context, server_context
from tests.authority import Authority
from tests.live import until


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[TlsChannel, ssl.SSLSocket]]:
    """Return both ends of a TLS 1.3 connection whose server has sent session tickets and nothing else."""
    files = Authority(tmp_path / "ca").files("localhost")
    serving = server_context(files, "none")
    serving.num_tickets = 4
    near, far = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(target=lambda: accepted.append(serving.wrap_socket(far, server_side=True)))
    thread.start()
    context = client_context(TlsFiles(ca_certificates=files.ca_certificates))
    with context.wrap_socket(near, server_hostname="localhost") as channel:
        thread.join(10)
        channel.settimeout(10)
        assert isinstance(channel, TlsChannel)
        with accepted[0] as server:
            yield channel, server


def test_tickets_are_nothing_to_read(ends):
    channel, server = ends
    assert select.select([channel], [], [], 10)[0], "there are bytes for who asks the network alone"
    assert not channel.readable()
    server.sendall(b"abc")
    until(channel.readable, "what was sent can be read", 10)
    assert channel.recv(10) == b"a", "what was read ahead comes first"
    assert channel.recv(10) == b"bc"
    assert not channel.readable()


def test_what_was_read_ahead_is_not_lost(ends):
    channel, server = ends
    server.sendall(b"abcdef")
    until(channel.readable, "what was sent can be read", 10)
    assert channel.pending() == 6
    buffer = bytearray(6)
    with memoryview(buffer) as view:
        assert channel.recv_into(view) == 1
        assert channel.recv_into(view[1:]) == 5
    assert buffer == b"abcdef"
    assert channel.gettimeout() == 10


def test_the_end_can_be_read(ends):
    channel, server = ends
    channel.readable()
    server.shutdown(socket.SHUT_RDWR)
    until(channel.readable, "the end can be read", 10)
    assert channel.recv(1) == b""


def test_an_end_is_told_without_waiting_and_nothing_leaves_in_the_clear_after_it(ends):
    channel, server = ends
    channel.say_end()
    server.settimeout(10)
    assert server.recv(1) == b"", "a close_notify, no broken connection"
    channel.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLError):
        channel.send(b"secret")
