"""Puts the application together: frame, who may look, pages, API, DICOMweb, and how errors are told."""

# No deferred annotations here: FastAPI reads them where they stand.
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse

from dicom_node import __version__
from dicom_node.config import Web
from dicom_node.domain.errors import NodeError
from dicom_node.domain.reading import Role
from dicom_node.web import login, problems
from dicom_node.web.access import LoginNeededError, login_path, require, session_of
from dicom_node.web.api import api
from dicom_node.web.desk import Desk
from dicom_node.web.dicomweb import dicomweb
from dicom_node.web.frame import Frame, headers_of
from dicom_node.web.pages import pages
from dicom_node.web.people import People
from dicom_node.web.shown import FOLDER, show

THREADS = 16
"""Requests that are worked on at a time; more wait."""


def create_app(desk: Desk, people: People, settings: Web) -> FastAPI:
    """Return the application.

    Raises
    ------
    CertificateError
        If the file of the identity provider's secret cannot be used.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        if hasattr(app.state, "changes"):
            await app.state.changes.close()

    app = FastAPI(
        title="dicom-node",
        version=__version__,
        description="What the node holds, and what it may be told. Not a medical device; results are unverified.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        servers=[{"url": settings.base_path}] if settings.base_path else None,
    )
    app.state.desk, app.state.people, app.state.settings = desk, people, settings

    @app.get("/health", include_in_schema=False)
    def health() -> Response:
        """Say whether the node can read its database; nothing else, and to anybody."""
        try:
            desk.changes(2**62)
        except NodeError:
            return JSONResponse({"status": "not ok"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/api/v1/openapi.json", include_in_schema=False, dependencies=[Depends(require(Role.VIEWER))])
    def openapi() -> Response:
        """Describe the JSON API and DICOMweb."""
        return JSONResponse(app.openapi())

    app.include_router(login.router)
    if settings.oidc.issuer:
        from dicom_node.web.oidc import oidc  # with its HTTP client; few sites need it

        app.include_router(oidc(settings.oidc))
    app.include_router(api(require))
    app.include_router(dicomweb(require))
    app.include_router(pages(require))
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    for kind in (NodeError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _told)
    app.add_exception_handler(LoginNeededError, _to_login)
    app.add_exception_handler(Exception, _our_mistake)
    if settings.oidc.issuer:
        # Holds the state of a login under way, for the provider's answer only.
        app.add_middleware(
            SessionMiddleware,
            secret_key=secrets.token_hex(32),
            session_cookie="dicom-node-login",
            max_age=600,
            same_site="lax",
            https_only=settings.secure,
        )
    app.add_middleware(Frame, host_names=host_names(settings), secure=settings.secure, root=settings.base_path)
    return app


def host_names(settings: Web) -> tuple[str, ...]:
    """Return the names under which the pages may be asked for."""
    own = () if settings.host in ("0.0.0.0", "::") else (settings.host,)  # noqa: S104 - compared, not bound
    return ("localhost", "127.0.0.1", "::1", *own, *settings.host_names)


async def _to_login(request: Request, _error: Exception) -> Response:
    return RedirectResponse(login_path(request), 303)


async def _our_mistake(request: Request, _error: Exception) -> Response:
    headers = {**headers_of(secure=request.app.state.settings.secure), "Cache-Control": "no-store"}
    return PlainTextResponse("This should not have happened. The node's log says where it did.", 500, headers)


async def _told(request: Request, error: Exception) -> Response:
    if problems.wants_problem(request):
        return problems.answer(error)
    if isinstance(error, HTTPException):
        status, detail = error.status_code, str(error.detail)
    elif isinstance(error, NodeError):
        status, detail = problems.status_of(error), str(error)
    else:
        status, detail = 422, "The address or the form holds something that is not valid here"
    try:
        await session_of(request)
    except NodeError:
        request.state.session = None  # the database is away, which may be what is told
    return await run_in_threadpool(show, request, "error.html", {"status": status, "detail": detail}, status)
