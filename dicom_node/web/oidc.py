"""OpenID Connect: an identity provider vouches for a person (authorisation code flow with PKCE).

Authlib speaks the protocol and checks the identity token; here stands only what a claim means for this node.
"""

# No deferred annotations here: FastAPI reads them where they stand.
import ssl
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from fastapi import APIRouter, Request
from fastapi.responses import Response
from httpx import HTTPError, InvalidURL
from joserfc.errors import JoseError
from starlette.concurrency import run_in_threadpool

from dicom_node.config.web import Oidc
from dicom_node.domain.errors import AccessError, CertificateError
from dicom_node.domain.people import RANK
from dicom_node.domain.reading import Role
from dicom_node.security.secret_files import read_secret
from dicom_node.web.access import OWN_ORIGIN, address_of, people_of
from dicom_node.web.login import welcome
from dicom_node.web.shown import show

_FAULTS = (AuthlibBaseError, JoseError, HTTPError, InvalidURL, ValueError, KeyError, TypeError, RuntimeError)
"""What Authlib and its HTTP client raise where a provider is away or answers nonsense."""


def role_of(settings: Oidc, claims: dict[str, Any]) -> Role | None:
    """Return the highest role that the claims give, None for none.

    Parameters
    ----------
    claims
        The identity token's. The claim may be a list, or text with spaces between; dots in its name lead into objects,
        as in ``realm_access.roles``.
    """
    found: Any = claims
    for part in settings.role_claim.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    stated = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
    named = {settings.viewer: Role.VIEWER, settings.operator: Role.OPERATOR, settings.admin: Role.ADMIN}
    return max(
        (named[one] for one in stated if isinstance(one, str) and one in named),
        key=RANK.__getitem__,
        default=None,
    )


def oidc(settings: Oidc) -> APIRouter:
    """Return the routes that lead to the provider and back.

    Raises
    ------
    CertificateError
        If the file of the client secret cannot be used.
    """
    router = APIRouter(include_in_schema=False)
    arguments: dict[str, Any] = {"scope": "openid profile", "code_challenge_method": "S256", "timeout": 10.0}
    if settings.ca_certificates is not None:
        arguments["verify"] = ssl.create_default_context(cafile=str(settings.ca_certificates))
    assert settings.client_secret_file is not None  # noqa: S101 - the configuration says so
    provider = OAuth().register(
        "provider",
        server_metadata_url=f"{settings.issuer}/.well-known/openid-configuration",
        client_id=settings.client_id,
        client_secret=read_secret(settings.client_secret_file).decode(),
        client_kwargs=arguments,
    )

    @router.get("/login/oidc")
    async def leave(request: Request) -> Response:
        """Lead to the provider."""
        try:
            response: Response = await provider.authorize_redirect(request, str(request.url_for("come_back")))
        except _FAULTS:
            return _refused(
                request, "The identity provider does not answer. Try again, or log in with a passcode."
            )
        return response

    @router.get("/login/oidc/back")
    async def come_back(request: Request) -> Response:
        """Let in whom the provider vouches for."""
        try:
            token = await provider.authorize_access_token(request)
            claims = dict(token["userinfo"])
            name, subject = _text(claims, settings.name_claim), f"{_text(claims, 'iss')} {_text(claims, 'sub')}"
        except _FAULTS:
            return _refused(request, "The identity provider did not vouch for you, or its answer was too late.")
        role = role_of(settings, claims)
        if role is None:
            return _refused(
                request,
                "The identity provider knows you, but gives you no role here; "
                f"one of {settings.viewer}, {settings.operator}, {settings.admin} is needed.",
            )
        try:
            opened = await run_in_threadpool(
                people_of(request).vouched, name, subject, role, address_of(request)
            )
        except (AccessError, CertificateError) as error:
            return _refused(request, f"{error}.")
        return await welcome(request, opened, "/")

    return router


def _text(claims: dict[str, Any], name: str) -> str:
    """Return a claim that must be there, as text. Raises KeyError, TypeError."""
    value = claims[name]
    if not isinstance(value, str) or not value:
        raise TypeError(name)
    return value


def _refused(request: Request, why: str) -> Response:
    values = {"next": "/", "name": "", "fault": why, "nobody": False, "provider": True}
    page = show(request, "login.html", values, 401)
    page.headers.update(OWN_ORIGIN)
    return page
