"""What a program is told when something cannot be done: problem details (RFC 9457), and which status stands for what.

A problem says what was seen and what would be right, in the words of the error. What a person typed is never in it.
"""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from dicom_node.domain.errors import (
    BankError,
    DatabaseError,
    IllegalTransitionError,
    InvalidIdentifierError,
    NodeError,
    NotFoundError,
    OutOfResourcesError,
)

MEDIA_TYPE = "application/problem+json"

_STATUS: tuple[tuple[type[NodeError], int], ...] = (
    (NotFoundError, 404),
    (IllegalTransitionError, 409),
    (BankError, 409),
    (InvalidIdentifierError, 400),
    (DatabaseError, 503),
    (OutOfResourcesError, 503),
)
_FOR_PROGRAMS = ("/api/", "/dicomweb/")


def status_of(error: NodeError) -> int:
    """Return the HTTP status that answers a request which failed for this reason."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def wants_problem(request: Request) -> bool:
    """Say whether a request came from a program: its path is the API's or DICOMweb's."""
    path = request.url.path.removeprefix(request.scope.get("root_path", ""))
    return path.startswith(_FOR_PROGRAMS)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a problem; nobody keeps a copy of it."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, {"Cache-Control": "no-store", **(headers or {})}, MEDIA_TYPE)


def answer(error: Exception) -> Response:
    """Return the problem that an exception is told as."""
    if isinstance(error, RequestValidationError):
        return problem(422, "; ".join(_fault(one) for one in error.errors()[:10]))
    if isinstance(error, HTTPException):
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))
    if isinstance(error, NodeError):
        status = status_of(error)
        again = {"Retry-After": "5"} if status == 503 else None
        return problem(status, str(error), again)
    raise error


def _fault(error: dict[str, object]) -> str:
    """Return where something was wrong and what would be right, without what was sent: a field's name may be typed."""
    place = error.get("loc", ())
    if error.get("type") == "extra_forbidden" and isinstance(place, tuple):
        place = place[:-1]
    where = ".".join(str(part)[:40] for part in place[1:]) if isinstance(place, tuple) else ""
    return f"{where or 'the request'}: {error.get('msg', 'is not valid')}"
