"""What a hospital's network does to a port: scanners, slow and broken peers, floods. Each runs for a while.

An attack is a function of the port's address, the attacker's address and how long to go on, in seconds.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.hostile import wire

Address = tuple[str, int]
Attack = Callable[[Address, str, float], None]

IDLE, GARBAGE, DRIP = 50, 30, 12
ASSOCIATIONS = int(os.environ.get("DICOM_NODE_HOSTILE_ASSOCIATIONS", "200"))
TLS_HELLO = bytes.fromhex(
    "160301007b0100007703038f6b1c2e0d3f4a5b6c7d8e9fa0b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d320"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f00081302130313011302"
) + bytes(60)
SCANS = (
    b"GET / HTTP/1.1\r\nHost: node\r\nUser-Agent: scanner\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\n\r\n",
    TLS_HELLO,
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\0\0\0\x85\xffSMBr\0\0\0\0\x18S\xc8" + bytes(100),
    b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x03\0\0\0",
    b"\r\n\r\n",
    b"HELP\r\nQUIT\r\n",
    bytes(4096),
    b"\xff" * 4096,
)


def _open(address: Address, source: str, count: int) -> list[socket.socket]:
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            opened.append(socket.create_connection(address, timeout=2, source_address=(source, 0)))
    return opened


def _close(connections: list[socket.socket]) -> None:
    for connection in connections:
        connection.close()


def idle(address: Address, source: str, seconds: float) -> None:
    """Open connections and say nothing."""
    connections = _open(address, source, IDLE)
    time.sleep(seconds)
    _close(connections)


def garbage(address: Address, source: str, seconds: float) -> None:
    """Send what scanners send, and noise, on many connections at once, again and again."""
    noise = random.Random(4)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connections = _open(address, source, GARBAGE)
        for number, connection in enumerate(connections):
            scan = SCANS[number % len(SCANS)] if number < 2 * len(SCANS) else noise.randbytes(2000)
            with contextlib.suppress(OSError):
                connection.sendall(scan)
        time.sleep(min(1.0, seconds / 4))
        _close(connections)


def drip(address: Address, source: str, seconds: float) -> None:
    """Send an association request byte by byte, on several connections; open another for each that is closed."""
    content = wire.request(contexts=b"".join(wire.context(2 * n + 1, wire.CR) for n in range(100)))
    connections: list[tuple[socket.socket, int]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        connections += [(connection, 0) for connection in _open(address, source, DRIP - len(connections))]
        alive = []
        for connection, at in connections:
            try:
                connection.sendall(content[at : at + 1])
                alive.append((connection, at + 1))
            except OSError:
                connection.close()
        connections = alive
        time.sleep(0.2)
    _close([connection for connection, _ in connections])


def huge_header(address: Address, source: str, seconds: float) -> None:
    """Announce PDUs of 4 GB and begin to send them."""
    deadline = time.monotonic() + seconds
    chunk = bytes(1_000_000)
    while time.monotonic() < deadline:
        for kind in (1, 4):
            with contextlib.suppress(OSError), wire.Wire(address, source, 5) as peer:
                if kind == 4:
                    peer.associate()
                peer.send(wire.pdu(kind, b"", 0xFFFFFFF0))
                while time.monotonic() < deadline:
                    peer.send(chunk)


def open_and_abort(address: Address, source: str, seconds: float) -> None:
    """Associate and abort, hundreds of times: with A-ABORT, by a reset, by closing."""
    deadline = time.monotonic() + max(30.0, seconds)

    def once(number: int) -> None:
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), wire.Wire(address, source, 10) as peer:
                if peer.associate()[:1] != b"\x02":
                    time.sleep(0.02)  # rejected for now
                    continue
                if number % 3 == 0:
                    peer.send(wire.ABORT)
                elif number % 3 == 1:
                    peer.reset()
                return

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(once, range(ASSOCIATIONS)))


def echo_flood(address: Address, source: str, seconds: float) -> None:
    """Send C-ECHO after C-ECHO and read no answer."""
    deadline = time.monotonic() + seconds
    flood = b"".join(wire.echo(number % 60_000) for number in range(500))
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), wire.Wire(address, source, 0.5) as peer:
            peer.associate()
            while time.monotonic() < deadline:
                peer.send(flood)


WITHOUT_ASSOCIATION = (f"idle x {IDLE}", f"garbage x {GARBAGE}", f"drip x {DRIP}")
ATTACKS: dict[str, Attack] = {
    f"idle x {IDLE}": idle,
    f"garbage x {GARBAGE}": garbage,
    f"drip x {DRIP}": drip,
    "PDU header of 4 GB": huge_header,
    f"{ASSOCIATIONS} associations opened and aborted": open_and_abort,
    "C-ECHO flood, no answer read": echo_flood,
}
