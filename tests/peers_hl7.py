"""A system that takes HL7 v2 messages over MLLP and answers as it is told."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Answering = Callable[[str], bytes]


def acknowledgement(code: str, *more: str, control_id: str | None = None) -> Answering:
    """Return what answers a message with a code, and with further segments; its text names a patient, as some do."""

    def answer(message: str) -> bytes:
        named = message.split("|")[9] if control_id is None else control_id
        rows = ["MSH|^~\\&|RIS|HOSP|||20260304||ACK^R01|1|P|2.5.1", f"MSA|{code}|{named}|Jane Doe", *more]
        return b"\x0b" + "\r".join(rows).encode() + b"\r\x1c\r"

    return answer


@contextmanager
def listening(answer: Answering, tls: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """Take one connection after the other, one message each; yield the port and the messages."""
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    try:
                        channel = connection if tls is None else tls.wrap_socket(connection, server_side=True)
                        data = b""
                        while not data.endswith(b"\x1c\r"):
                            piece = channel.recv(65536)
                            if not piece:
                                break
                            data += piece
                        else:
                            heard.append(data[1:-2].decode())
                            channel.sendall(answer(heard[-1]))
                            channel.recv(1)
                    except OSError:
                        continue

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
