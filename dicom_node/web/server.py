"""Serves the application from a thread of its own, so that it holds up nothing else of the node.

Owns what uvicorn is told. What it has to say of a fault is logged without the fault's words: they may quote an image.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from dicom_node.config import Web
from dicom_node.domain.errors import OutOfResourcesError
from dicom_node.domain.security import TlsFiles
from dicom_node.security.contexts import RenewedContext, server_context
from dicom_node.web.connections import CONNECTIONS, Door, Hasty

log = logging.getLogger(__name__)

_START_SECONDS, _STOP_SECONDS = 30, 5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@contextmanager
def served(app: FastAPI, settings: Web) -> Iterator[str]:
    """Serve inside the block; yields the address of the list.

    Raises
    ------
    OutOfResourcesError
        If the address cannot be bound, or the server does not start.
    CertificateError
        If the files of ``[web.tls]`` cannot be used.
    """
    secure = _renewed(settings.tls.files) if settings.tls.enabled else None
    listening = _bound(settings)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Hasty,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS + 1,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_SECONDS,
        h11_max_incomplete_event_size=32_768,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ws="none",
    )
    config.load()
    config.ssl = secure
    logging.getLogger("uvicorn.error").addFilter(_discreet)
    server = _Server(config)
    if secure is not None:
        listening.agreed = lambda: {
            one.client for one in server.server_state.connections if isinstance(one, Hasty)
        }
    thread = threading.Thread(target=server.run, args=([listening],), name="web", daemon=True)
    thread.start()
    host, port = listening.getsockname()[:2]
    name = f"[{host}]" if ":" in host else host
    address = f"{'https' if settings.tls.enabled else 'http'}://{name}:{port}{settings.base_path}/"
    try:
        if not server.ready.wait(_START_SECONDS):
            raise OutOfResourcesError(f"the server of the pages did not start within {_START_SECONDS} s")
        log.info("the reading worklist is served", extra={"address": address})
        yield address
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS + 5)
        listening.close()


def _renewed(files: TlsFiles) -> ssl.SSLContext:
    """Return a context whose connections use the certificate that the files hold when they begin."""
    newest = RenewedContext(files, lambda: server_context(files, "none"))
    context = newest()

    def use_newest(connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = newest()

    context.sni_callback = use_newest
    return context


def _discreet(record: logging.LogRecord) -> bool:
    """Keep of an exception its kind and where it arose."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        record.exc_info, record.exc_text = None, None
        record.kind = type(error).__name__
        record.where = [
            f"{frame.filename}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)[-6:]
        ]
    return True


def _bound(settings: Web) -> Door:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = Door(family)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise OutOfResourcesError(
            f"[web] {settings.host}:{settings.port} cannot be listened on: {error.strerror or error}; "
            "choose another port, or stop what listens there"
        ) from error
    return listening
