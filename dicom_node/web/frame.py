"""What surrounds every request: bounds on what comes in, headers on what goes out, and a line in the log.

The log has the route and never the address: a study's UID may stand there. Pure ASGI, so that streams stay streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

LARGEST_BODY = 1_000_000
BODY_SECONDS = 30.0
"""A request's body is there within that time."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; "
    "form-action 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def headers_of(*, secure: bool) -> Mapping[str, str]:
    """Return the headers that every answer has; `secure` says whether browsers come over TLS."""
    return {**_HEADERS, "Strict-Transport-Security": "max-age=31536000"} if secure else _HEADERS


class Frame:
    """The outermost layer.

    Parameters
    ----------
    host_names
        Names under which the pages may be asked for; others are refused, so that no other site's name leads here.
    secure
        Whether browsers come over TLS.
    root
        The path before all others.
    """

    def __init__(self, app: ASGIApp, host_names: Sequence[str], *, secure: bool, root: str = "") -> None:
        self._app, self._root = app, root
        self._hosts = frozenset(name.lower() for name in host_names)
        self._headers = headers_of(secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began, status = time.monotonic(), 0
        headers = Headers(scope=scope)
        path = scope["path"]
        if self._root:  # a proxy may leave it in front, or take it away
            path = path.removeprefix(self._root) if path.startswith(f"{self._root}/") else path
            scope = {**scope, "root_path": self._root, "path": f"{self._root}{path}"}

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    out.setdefault(name, value)
                out.setdefault("Cache-Control", _keeping(path, scope["query_string"], status))
            await send(message)

        try:
            refused = self._refused(headers)
            if refused is not None:
                await refused(scope, receive, answer)
            else:
                await self._app(scope, _bounded(receive), answer)
        finally:
            self._note(scope, status or 500, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, took: float) -> None:
        quiet = scope["method"] in ("GET", "HEAD") and status < 400
        fields = {
            "method": scope["method"] if scope["method"] in _METHODS else "other",
            "route": getattr(scope.get("route"), "path", ""),
            "status": status,
            "milliseconds": round(took * 1000),
        }
        log.log(logging.DEBUG if quiet else logging.INFO, "request", extra=fields)

    def _refused(self, headers: Headers) -> PlainTextResponse | None:
        host = headers.get("host", "")
        name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
        if name.lower() not in self._hosts:
            return PlainTextResponse(
                "This name is not one of this node's; an administrator can add it to host_names in [web].", 421
            )
        if "content-length" in headers and "transfer-encoding" in headers:  # RFC 9112 section 6.1
            told = "A request has a Content-Length or a Transfer-Encoding; one with both could hide another."
            return PlainTextResponse(told, 400, {"Connection": "close"})
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            return PlainTextResponse(f"More than {LARGEST_BODY} bytes are not taken here.", 413)
        return None


def _keeping(path: str, query: bytes, status: int) -> str:
    """Return what a browser may keep: files of the program, for long those whose version the page named."""
    if not path.startswith("/static/"):
        return "no-store"  # it may be a patient's
    return "public, max-age=31536000, immutable" if query and status in (200, 304) else "no-cache"


def _bounded(receive: Receive) -> Receive:
    """Return a `receive` that ends a request which brings more than it may, or takes too long for it."""
    got, whole = 0, False
    until = time.monotonic() + BODY_SECONDS

    async def bounded() -> Message:
        nonlocal got, whole
        if whole:  # what comes now is that the other side hung up, whenever it does
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), max(until - time.monotonic(), 0.001))
        except TimeoutError:
            raise HTTPException(
                408, f"the request took longer than {BODY_SECONDS:.0f} s; send it again"
            ) from None
        got += len(message.get("body", b""))
        whole = not message.get("more_body", False)
        if got > LARGEST_BODY:
            raise HTTPException(413, f"more than {LARGEST_BODY} bytes are not taken here")
        return message

    return bounded
