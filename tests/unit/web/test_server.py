"""The server itself: TLS, bounds on connections before anything was asked, starting and stopping."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from dicom_node.config import Web
from dicom_node.config.web import WebTls
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.web import connections
from dicom_node.web.connections import Door
from dicom_node.web.server import served
from tests.authority import Authority
from tests.peers import free_port


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    def hello() -> PlainTextResponse:
        return PlainTextResponse("hello")

    @app.get("/broken")
    def broken() -> None:
        raise ValueError("marked-patient")

    return app


@contextmanager
def running(**settings: object) -> Iterator[tuple[str, int]]:
    port = free_port()
    with served(application(), Web(port=port, **settings)) as address:
        yield address, port


def connection(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def hung_up(one: socket.socket) -> bool:
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: local", b"GET /"], ids=["nothing", "half", "less"]
)
def test_who_does_not_ask_in_time_is_hung_up_on(monkeypatch, said):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
    with running() as (_, port), connection(port) as one:
        one.sendall(said)
        assert hung_up(one)


def test_a_second_request_on_a_connection_has_the_same_time(monkeypatch):
    with running() as (_, port), connection(port) as one:
        one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"hello"):
            answer += one.recv(4096)
        monkeypatch.setattr(connections, "HEAD_SECONDS", 0.05)
        one.sendall(b"GET / HT")
        assert hung_up(one)


def test_more_connections_than_may_be_are_closed_and_room_is_made_when_one_leaves():
    with Door(socket.AF_INET, most=2) as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        callers = [connection(port) for _ in range(3)]
        inside = [door.accept()[0] for _ in range(2)]
        with pytest.raises(ConnectionAbortedError):
            door.accept()
        assert hung_up(callers[2])
        inside[0].close()
        callers.append(connection(port))
        inside.append(door.accept()[0])
        for one in callers + inside:
            one.close()


def test_it_serves_on_while_as_many_as_may_say_nothing(monkeypatch):
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with running() as (address, port):
        idle = [connection(port) for _ in range(connections.CONNECTIONS)]
        assert all(hung_up(one) for one in idle)  # in time, all of them
        assert httpx.get(address).text == "hello"
        for one in idle:
            one.close()


def test_who_comes_is_served_at_once_while_a_crowd_says_nothing_and_the_first_of_them_makes_way():
    with running() as (address, port), httpx.Client(base_url=address) as before:
        assert before.get("/").text == "hello"
        crowd = [connection(port) for _ in range(connections.CROWD + 20)]
        for _ in range(30):
            assert httpx.get(address).text == "hello"
        crowd[-1].settimeout(0.1)
        with pytest.raises(TimeoutError):
            crowd[-1].recv(1)  # the newest still may ask
        crowd[-1].settimeout(10)
        crowd[-1].sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert crowd[-1].recv(12) == b"HTTP/1.1 200"
        assert hung_up(crowd[0])
        assert before.get("/").text == "hello", "a browser comes again by itself"
        for one in crowd:
            one.close()


def secured(authority: Authority) -> tuple[WebTls, ssl.SSLContext]:
    files = authority.files("localhost", "127.0.0.1")
    tls = WebTls(enabled=True, certificate=files.certificate, private_key=files.private_key)
    return tls, ssl.create_default_context(cafile=str(authority.certificate))


def test_over_tls_who_comes_is_served_at_once_while_a_crowd_does_not_begin_its_handshake(tmp_path):
    tls, trust = secured(Authority(tmp_path / "ca"))
    with running(tls=tls) as (address, port):
        crowd = [connection(port) for _ in range(connections.CONNECTIONS - 1)]
        for _ in range(10):
            assert httpx.get(address, verify=trust).text == "hello"
        assert hung_up(crowd[0])
        for one in crowd:
            one.close()


def test_over_tls_a_renewed_certificate_is_used_without_a_restart(tmp_path):
    authority = Authority(tmp_path / "ca")
    tls, trust = secured(authority)
    with running(tls=tls) as (address, port):
        assert address.startswith("https://")
        assert httpx.get(address, verify=trust).text == "hello"
        first = shown(trust, port)
        authority.files("localhost", "127.0.0.1")
        assert shown(trust, port) != first
        with pytest.raises(httpx.HTTPError):
            httpx.get(address.replace("https", "http"))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            shown(old, port)


def shown(trust: ssl.SSLContext, port: int) -> bytes | None:
    """Return the certificate that the server shows."""
    with connection(port) as plain, trust.wrap_socket(plain, server_hostname="localhost") as secure:
        return secure.getpeercert(binary_form=True)


def test_what_a_mistake_says_is_kept_out_of_the_log(caplog):
    with running() as (address, _):
        assert httpx.get(f"{address}broken").status_code == 500
    (told,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert told.kind == "ValueError"
    assert told.where[-1].endswith("broken")
    assert "marked" not in caplog.text + str(vars(told))


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(OutOfResourcesError, match=rf"\[web\] 127.0.0.1:{port} cannot be listened on"),
            served(application(), Web(port=port)),
        ):
            pass


def test_afterwards_nothing_listens_and_no_thread_is_left():
    with running() as (_, port):
        pass
    with pytest.raises(ConnectionRefusedError):
        connection(port)
    assert not [thread for thread in threading.enumerate() if thread.name == "web"]
