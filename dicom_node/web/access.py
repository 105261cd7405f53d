"""Who asks, and whether he may: the session's cookie or a program's token, the role, and the token of a form.

A request that changes something and shows a cookie must carry the session's own token (CSRF) and come from these pages.
"""

# No deferred annotations here: FastAPI reads them where they stand.
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import Response

from dicom_node.domain.people import By, Opened, Person, Session
from dicom_node.domain.reading import Role
from dicom_node.web.people import People
from dicom_node.web.problems import wants_problem

SAFE = ("GET", "HEAD", "OPTIONS")
OWN_ORIGIN = {"Referrer-Policy": "same-origin"}
"""Of a page with a form that no session protects: the browser then says where the form stood."""
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class LoginNeededError(Exception):
    """Nobody is logged in, and a person with a browser asks: show where to log in."""


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie; over TLS one that a browser takes from this very host only."""
    return "__Host-dicom-node" if request.app.state.settings.secure else "dicom-node"


def people_of(request: Request) -> People:
    """Return who lets people in."""
    people: People = request.app.state.people
    return people


def address_of(request: Request) -> str:
    """Return where a request comes from; a trusted proxy has said so, where there is one."""
    return request.client.host if request.client else ""


def by(request: Request, name: str) -> By:
    """Return who asks as the audit trail names it."""
    return By(name, address_of(request))


async def session_of(request: Request) -> Session | None:
    """Return whose request this is; None for nobody's."""
    if not hasattr(request.state, "session"):
        people = people_of(request)
        found: Session | None = None
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token:
            person = await run_in_threadpool(people.program, token.strip())
            found = None if person is None else Session(person, "")
        elif token := request.cookies.get(cookie_name(request), ""):
            found = await run_in_threadpool(people.session, token, alive=_by_a_person(request))
        request.state.session = found
    session: Session | None = request.state.session
    return session


def _by_a_person(request: Request) -> bool:
    """Say whether a person has asked, as far as the browser tells, and not a page's script or its pictures."""
    return request.method not in SAFE or request.headers.get("sec-fetch-dest", "document") == "document"


def require(role: Role) -> Callable[[Request], Awaitable[Person]]:
    """Return a dependency that gives the person who asks.

    Raises
    ------
    LoginNeededError
        If nobody is logged in and a browser asks for a page.
    HTTPException
        401 if a program shows no token that is known; 403 if the person has not got the role, or the request does
        not come from these pages.
    """

    async def person(request: Request) -> Person:
        session = await session_of(request)
        if session is None:
            if wants_problem(request) or request.method not in SAFE:
                raise HTTPException(
                    401,
                    "nobody is logged in; log in, or send `Authorization: Bearer TOKEN` (dicom-node user token NAME)",
                    {"WWW-Authenticate": "Bearer"},
                )
            raise LoginNeededError
        if not session.person.may(role):
            raise HTTPException(
                403, f"this is for the role {role.value}; {session.person.name} is {session.person.role.value}"
            )
        if request.method not in SAFE and session.csrf:
            await _check_form(request, session)
        return session.person

    person.__dict__["role"] = role
    return person


async def _check_form(request: Request, session: Session) -> None:
    check_origin(request)
    shown = request.headers.get("x-csrf-token", "")
    if not shown and request.headers.get("content-type", "").partition(";")[0].lower() in _FORMS:
        shown = str((await request.form()).get("csrf", ""))
    if not hmac.compare_digest(shown.encode(), session.csrf.encode()):
        raise HTTPException(
            403, "the request does not carry this session's token; load the page again and repeat it"
        )


def check_origin(request: Request, *, strict: bool = False) -> None:
    """Refuse what a browser says that another site made it send. Raises HTTPException.

    A page with the policy no-referrer sends the origin "null", as do pages that hide theirs: `strict` refuses it, where
    no token of a session stands beside it.
    """
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", "")
    allowed = ("",) if strict else ("", "null")
    other = origin not in allowed and urlsplit(origin).netloc != request.headers.get("host", "")
    if site not in ("same-origin", "none") or other:
        raise HTTPException(403, "the request comes from another site; use the pages of this node")


def let_in(request: Request, response: Response, opened: Opened) -> None:
    """Give a new session's token to the browser."""
    settings = request.app.state.settings
    response.set_cookie(
        cookie_name(request),
        opened.token,
        max_age=int(settings.session_hours * 3600),
        path="/",
        secure=settings.secure,
        httponly=True,
        samesite="lax",
    )


def local(path: str) -> str:
    """Return a path if it leads to a page of this node, else that of the list."""
    parts = urlsplit(path)
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain and not parts.netloc and not parts.scheme else "/"


def login_path(request: Request) -> str:
    """Return where to log in, and come back from."""
    root = request.scope.get("root_path", "")
    path = request.url.path.removeprefix(root)
    back = f"?next={quote(path)}" if path not in ("", "/") else ""
    return f"{root}/login{back}"
