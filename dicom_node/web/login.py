"""Logging in and out: by passcode, by a one-time link, by an identity provider."""

# No deferred annotations here: FastAPI reads them where they stand.
from typing import Annotated

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from dicom_node.domain.errors import AccessError
from dicom_node.domain.people import Opened
from dicom_node.domain.reading import Role
from dicom_node.web.access import (
    OWN_ORIGIN,
    address_of,
    check_origin,
    cookie_name,
    let_in,
    local,
    people_of,
    require,
    session_of,
)
from dicom_node.web.shown import show

router = APIRouter(include_in_schema=False)

_LONGEST = 1024
_guessing = CapacityLimiter(4)
"""Threads that logins may occupy: a flood of them holds up no one who is inside."""


@router.get("/login")
def form(request: Request, next: str = "/") -> Response:  # noqa: A002 - its name in the address
    """Show the form."""
    return _form(request, next)


@router.post("/login")
async def login(
    request: Request,
    name: Annotated[str, Form(max_length=64)] = "",
    passcode: Annotated[str, Form(max_length=_LONGEST)] = "",
    next: Annotated[str, Form(max_length=_LONGEST)] = "/",  # noqa: A002 - its name in the form
) -> Response:
    """Let somebody in, or say why not."""
    check_origin(request, strict=True)
    try:
        opened = await to_thread.run_sync(
            people_of(request).login, name, passcode, address_of(request), limiter=_guessing
        )
    except AccessError as error:
        return await run_in_threadpool(_refused, request, error, next, name)
    return await welcome(request, opened, local(next))


@router.get("/login/link")
def link(request: Request, token: Annotated[str, Query(max_length=128)]) -> Response:
    """Ask whether to use a one-time link: a program that looks at links must not use it up."""
    page = show(request, "link.html", {"token": token})
    page.headers.update(OWN_ORIGIN)
    return page


@router.post("/login/link")
async def follow(request: Request, token: Annotated[str, Form(max_length=128)]) -> Response:
    """Let somebody in by a one-time link."""
    check_origin(request, strict=True)
    try:
        opened = await to_thread.run_sync(
            people_of(request).follow_link, token, address_of(request), limiter=_guessing
        )
    except AccessError as error:
        return await run_in_threadpool(_refused, request, error)
    return await welcome(request, opened, "/")


@router.post("/logout")
async def logout(request: Request) -> Response:
    """End the session; without its token nothing happens."""
    person = await require(Role.VIEWER)(request)
    if token := request.cookies.get(cookie_name(request), ""):
        await run_in_threadpool(people_of(request).logout, token, person.name, address_of(request))
    response = RedirectResponse(request.scope.get("root_path", "") + "/login", 303)
    secure = request.app.state.settings.secure  # a browser takes the name __Host- with that alone
    response.delete_cookie(cookie_name(request), path="/", secure=secure, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache"'  # the next person at this browser finds no picture in it
    return response


async def welcome(request: Request, opened: Opened, path: str) -> Response:
    """Begin the session in this browser and end the one that was there; lead to a page."""
    before = request.cookies.get(cookie_name(request), "")
    if before and (session := await session_of(request)) is not None:
        await run_in_threadpool(people_of(request).logout, before, session.person.name, address_of(request))
    response = RedirectResponse(request.scope.get("root_path", "") + path, 303)
    let_in(request, response, opened)
    return response


def _refused(request: Request, error: AccessError, back: str = "/", name: str = "") -> Response:
    return _form(request, back, name, f"{str(error)[0].upper()}{str(error)[1:]}.", 401)


def _form(request: Request, back: str, name: str = "", fault: str = "", status: int = 200) -> Response:
    people = people_of(request)
    page = show(
        request,
        "login.html",
        {
            "next": local(back),
            "name": name,
            "fault": fault,
            "nobody": not people.anybody(),
            "provider": bool(request.app.state.settings.oidc.issuer),
        },
        status,
    )
    page.headers.update(OWN_ORIGIN)
    return page
