"""The pages' port as scanners, slow and broken browsers and floods meet it: others are served, images come in.

The node receives and serves the pages in one process, as `dicom-node serve` does.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import pytest

from tests.hostile.attacks import SCANS
from tests.hostile.conftest import Receiver, start, stop
from tests.hostile.prober import probing
from tests.hostile.test_floods import SECONDS, patience
from tests.hostile.watch import peak_memory, resident, soon
from tests.peers import free_port

CONNECTIONS = int(os.environ.get("DICOM_NODE_HOSTILE_ASSOCIATIONS", "200")) * 5
MEGABYTES_MORE = 120
"""Than at rest: one passcode's hash takes 64, and one at a time is made."""
THREADS_KEPT = 24
"""Those of the pages wait a while for more work."""
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"


@dataclass
class Site:
    """A node with pages, the token of a viewer's program, and the memory it takes at rest."""

    node: Receiver
    port: int
    token: str
    megabytes: float

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connection(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def answer(self, sent: bytes) -> bytes:
        """Return all that is answered until the connection ends, or a while after the last of it."""
        answered = b""
        with self.connection() as one, contextlib.suppress(OSError):
            one.sendall(sent)
            one.settimeout(2)
            while piece := one.recv(65536):
                answered += piece
        return answered

    def serves(self) -> None:
        """See that the pages are served, and that nothing is left."""
        assert httpx.get(f"{self.url}/health", timeout=20).json() == {"status": "ok"}
        assert self.node.settles(), f"{self.node.holds()} is left of {self.node.at_rest}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("web"), free_port()
    node = start(folder, web={"enabled": True, "port": port})
    config = ["--config", str(folder / "config.toml")]

    def user(*arguments: str) -> str:
        command = [sys.executable, "-m", "dicom_node", "user", *arguments, *config]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    user("add", "reader", "--role", "viewer", "--no-passcode")
    found = re.search(r"^\S{40,}$", user("token", "reader"), re.MULTILINE)
    assert found is not None
    assert soon(lambda: "the reading worklist is served" in (folder / "log").read_text())
    time.sleep(6)  # what is looked at beforehand, and the process that draws
    threads, sockets = node.holds()
    node.at_rest = (threads + THREADS_KEPT, sockets)
    yield Site(node, port, found[0], resident(node.pid))
    stop(node)


REQUESTS = {
    **{f"scan {number}": scan for number, scan in enumerate(SCANS)},
    "no host": b"GET /login HTTP/1.1\r\n\r\n",
    "two hosts": HEAD + b"Host: evil.example\r\n\r\n",
    "a host of another site": b"GET /login HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a host of 30 kB": b"GET /login HTTP/1.1\r\nHost: " + b"a" * 30_000 + b"\r\n\r\n",
    "a host with a line break": b"GET /login HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "an address of another host": b"GET http://evil.example/login HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a header of 1 MB": HEAD + b"X: " + b"a" * 1_000_000 + b"\r\n\r\n",
    "ten thousand headers": HEAD + b"X: y\r\n" * 10_000 + b"\r\n",
    "a header without a colon": HEAD + b"nonsense\r\n\r\n",
    "a header of control characters": HEAD + b"X: \0\1\2\r\n\r\n",
    "a target of 40 kB": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a method of none": b"G\0T / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a length and chunks": HEAD
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n",
    "a length of 4 GB": HEAD + b"Content-Length: 4294967296\r\n\r\n",
    "a length below nothing": HEAD + b"Content-Length: -5\r\n\r\n",
    "a chunk of 4 GB": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffff\r\n",
    "chunks of no number": HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "another transfer encoding": HEAD + b"Transfer-Encoding: gzip, identity\r\n\r\n",
    "an upgrade": HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
}  # fmt: skip


HARMLESS = {"an upgrade", "ten thousand headers", "a chunk of 4 GB"}
"""Answered as if that were not there: once, and the connection ends."""


@pytest.mark.parametrize("name", REQUESTS)
def test_what_no_browser_sends_is_refused_or_hung_up_on(name: str, site: Site) -> None:
    answered = site.answer(REQUESTS[name])
    assert answered[:12] in (b"", *(b"HTTP/1.1 %d" % code for code in (400, 404, 405, 413, 421, 431, 501))) or (
        name in HARMLESS and answered[9:12] == b"200"
    )
    assert answered.count(b"HTTP/1.1 ") <= 1, "a request was smuggled in"
    site.serves()


TRAVERSALS = [
    "/static/../../../../etc/passwd", "/static/..%2f..%2f..%2f..%2fetc/passwd", "/static/%2e%2e/%2e%2e/server.py",
    "/static/....//....//etc/passwd", "/static//etc/passwd", "/static/%2fetc%2fpasswd", "/static/..\\..\\server.py",
    "/static/%00", "/static/style.css%00.png", "/static/" + "../" * 40 + "etc/passwd", "//etc/passwd",
    "/../templates/login.html", "/static/../templates/login.html", "/api/v1/../../etc/passwd",
    "/dicomweb/studies/../../../etc/passwd", "/api/v1/studies/..%2f..%2fetc%2fpasswd/images/1/thumbnail",
    "/dicomweb/studies/%00/series", "/%ff%fe",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file_that_is_not_the_pages_own(path: str, site: Site) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\nConnection: close\r\n\r\n"
    answered = site.answer(sent.encode())
    assert answered[9:12] in (b"400", b"404", b"422")
    assert not [
        secret for secret in (b"root:", b"import ", b"{%") if secret in answered.partition(b"\r\n\r\n")[2]
    ]


def test_a_body_is_bounded_in_size_and_in_time_on_every_way_in(site: Site) -> None:
    login = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with site.connection() as one:
        one.sendall(login + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                one.sendall(b"4000\r\n" + bytes(0x4000) + b"\r\n")
        assert one.recv(12) == b"HTTP/1.1 413"
    site.serves()


def _heads(site: Site, seconds: float) -> None:
    """Send the head of a request byte by byte, on many connections."""
    deadline = time.monotonic() + seconds
    connections: list[tuple[socket.socket, int]] = []
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            connections += [(site.connection(), 0) for _ in range(50 - len(connections))]
        alive = []
        for one, at in connections:
            with contextlib.suppress(OSError):
                one.sendall(HEAD[at % len(HEAD) :][:1])
                alive.append((one, at + 1))
        connections = alive
        time.sleep(0.2)
    for one, _ in connections:
        one.close()


def _connections(site: Site, seconds: float) -> None:
    """Open a thousand connections, say nothing, and open them again when they are closed."""
    opened: list[socket.socket] = []
    with contextlib.suppress(OSError):
        opened += [socket.create_connection(("127.0.0.1", site.port), timeout=1) for _ in range(CONNECTIONS)]
    time.sleep(seconds)
    for one in opened:
        one.close()


def _bodies(site: Site, seconds: float) -> None:
    """Promise a body and send little of it."""
    sent = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"
    opened = []
    with contextlib.suppress(OSError):
        for _ in range(50):
            opened.append(site.connection())
            opened[-1].sendall(sent)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for one in opened:
            with contextlib.suppress(OSError):
                one.sendall(b"x")
        time.sleep(0.1)
    for one in opened:
        one.close()


def _logins(site: Site, seconds: float) -> None:
    """Guess passcodes on eight connections at once: each guess costs the node an argon2 hash."""
    deadline = time.monotonic() + seconds

    def guess(worker: int) -> None:
        with httpx.Client(base_url=site.url, timeout=30) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    client.post("/login", data={"name": f"guess{worker}", "passcode": "x" * 900})

    threads = [threading.Thread(target=guess, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _streams(site: Site, seconds: float) -> None:
    """Listen to changes on many connections, read nothing, and reset them."""
    sent = (
        f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {site.token}\r\n\r\n".encode()
    )
    opened = []
    with contextlib.suppress(OSError):
        for _ in range(90):
            opened.append(site.connection())
            opened[-1].sendall(sent)
    assert opened[0].recv(12) == b"HTTP/1.1 200"
    time.sleep(seconds)
    for one in opened:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()


FLOODS: dict[str, Callable[[Site, float], None]] = {
    "heads that drip": _heads,
    "a thousand connections": _connections,
    "bodies that drip": _bodies,
    "passcodes guessed": _logins,
    "streams that nobody reads": _streams,
}


@pytest.mark.parametrize("name", FLOODS)
def test_images_come_in_and_others_are_served_during(name: str, site: Site, tmp_path: Path) -> None:
    flood = threading.Thread(target=FLOODS[name], args=(site, SECONDS))
    prefix = f"1.2.5.{list(FLOODS).index(name) + 1}"
    served = 0
    with (
        peak_memory(site.node.pid) as peak,
        probing(site.node.port, "DICOMNODE", prefix, tmp_path / "seen") as service,
    ):
        flood.start()
        while flood.is_alive():
            with contextlib.suppress(httpx.HTTPError):
                served += httpx.get(f"{site.url}/health", timeout=5).status_code == 200
            time.sleep(0.05)
        flood.join()
        time.sleep(0.5)
    assert service.failed == {"echo": [], "store": []}
    assert median(service.answered["echo"]) < patience()
    assert served
    assert peak.megabytes < site.megabytes + MEGABYTES_MORE
    site.serves()
