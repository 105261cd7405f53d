"""Pictures as a browser may keep them: for itself, and asking each time whether they are still the same.

So who may look is asked each time, too, and a picture travels once.
"""

from __future__ import annotations

from hashlib import blake2b

from fastapi import Request
from fastapi.responses import Response


def kept(request: Request, content: bytes, media_type: str) -> Response:
    """Return a picture with its ETag, or 304 where the browser has it already (RFC 9110 section 13.1.2)."""
    tag = f'"{blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"Cache-Control": "private, no-cache", "ETag": tag}
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
