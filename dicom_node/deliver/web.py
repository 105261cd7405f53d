"""One HTTP session with a DICOMweb service: TLS, who asks, and what its answers mean. Knows nothing of what is sent.

What dicomweb-client does otherwise: it tries again by itself, and names the host without its port.
"""

from __future__ import annotations

import logging
import ssl
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter

from dicom_node.domain.errors import (
    CertificateError,
    DestinationAwayError,
    DestinationRefusedError,
    NodeError,
    NotOfferedError,
)
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.security.contexts import client_context
from dicom_node.security.faults import explain_server
from dicom_node.security.secret_files import read_secret

# What they say of each request is said better by the events of a delivery.
logging.getLogger("dicomweb_client").setLevel(logging.WARNING)
logging.getLogger("urllib3").setLevel(logging.WARNING)
logging.getLogger("retrying").setLevel(logging.CRITICAL)

JSON = "application/dicom+json"

_BROKEN = (ValueError, KeyError, TypeError, AttributeError, SyntaxError)  # the last is that of broken XML
_ASKED_WHO = {401, 403, 407}
_BUSY = {408, 425, 429}
_NO_SUCH = {404, 405, 501}
_WHOLE = 2**31 - 1  # one piece, whatever its size: chunked transfer coding is not understood everywhere


def where(destination: Destination) -> str:
    """Return the destination's name and URL, for messages."""
    return f"{destination.name} ({destination.url})"


@contextmanager
def session(
    destination: Destination, timeout: float, answers: list[requests.Response]
) -> Iterator[DICOMwebClient]:
    """Yield a client of the service; every error of HTTP within the block becomes one of this program's.

    Parameters
    ----------
    timeout
        Longest wait, in seconds, for the connection and for each piece of an answer.
    answers
        Is given each answer as it comes, also those that are errors.

    Raises
    ------
    DestinationAwayError, NotOfferedError, DestinationRefusedError
        As `connected`.
    """
    with connected(destination, timeout, answers) as http:
        client = DICOMwebClient(destination.url, http, chunk_size=_WHOLE, timeout=timeout)
        client.set_http_retry_params(retry=False)
        yield client


@contextmanager
def connected(
    destination: Destination, timeout: float, answers: list[requests.Response]
) -> Iterator[requests.Session]:
    """Yield a session of HTTP that says who asks; every error within the block becomes one of this program's.

    `timeout` is only told of in messages: each request is given it.

    Raises
    ------
    DestinationAwayError
        If it cannot be reached, does not answer in time, is busy, or does not let this node in.
    NotOfferedError
        If there is no such service at its URL.
    DestinationRefusedError
        If it answers any other error, or sends elsewhere.
    """

    def note(answer: requests.Response, *_: Any, **__: Any) -> None:
        answers.append(answer)

    with requests.Session() as http:
        http.trust_env = False  # no proxy, no netrc that somebody left in the environment
        http.max_redirects = 0  # a redirected POST becomes a GET
        http.hooks["response"].append(note)
        try:
            http.auth = _Who(destination.security)
            if destination.security.tls is not None:
                http.mount("https://", _Adapter(destination.security))
        except CertificateError as error:
            raise DestinationAwayError(f"{where(destination)}: {error}") from error
        try:
            yield http
        except requests.HTTPError as error:
            raise judge_http(destination, answers[-1].status_code) from error
        except _BROKEN as error:
            raise DestinationAwayError(
                f"{where(destination)} answered with something that is no DICOM JSON ({type(error).__name__}); "
                "check that url is that of a DICOMweb service"
            ) from error
        except requests.TooManyRedirects as error:
            raise DestinationRefusedError(
                f"{where(destination)} sends elsewhere; url must be where it really is"
            ) from error
        except requests.exceptions.SSLError as error:
            told = explain_server(_reason(error), destination.security.server_name, None)
            raise DestinationAwayError(f"{where(destination)}: {told}") from error
        except requests.Timeout as error:
            raise DestinationAwayError(
                f"{where(destination)} did not answer within {timeout:g} s; whether it did what it was asked is unknown"
            ) from error
        except requests.RequestException as error:
            raise DestinationAwayError(
                f"{where(destination)}: no connection, or it was ended ({type(error).__name__}); check that it runs "
                "and that url is right"
            ) from error


def judge_http(destination: Destination, status: int) -> NodeError:
    """Return what an HTTP status other than success means.

    Who is not let in tries again: tokens are renewed and rights are given, and the reports of the time before must
    then go out by themselves.
    """
    said = f"{where(destination)} answered HTTP {status}"
    if status in _ASKED_WHO:
        return DestinationAwayError(
            f"{said}: it does not let this node in; token_file, or username and passcode_file, must be what it expects"
        )
    if status in _NO_SUCH:
        return NotOfferedError(
            f"{said}: there is no such service; url must be the base of its DICOMweb services"
        )
    if status >= 500 or status in _BUSY:
        return DestinationAwayError(f"{said}; it must be in order and have room")
    return DestinationRefusedError(f"{said}; find the cause in its log, then retry or cancel")


def told(answer: requests.Response) -> Dataset:
    """Return what an answer says in DICOM JSON; an empty data set where it says nothing of that kind.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError
        If it is broken.
    """
    kind = answer.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if not answer.content or kind not in {JSON, "application/json"}:
        return Dataset()
    content = answer.json()
    if isinstance(content, list):  # some send the one data set in a list
        content = content[0] if content else {}
    return Dataset.from_json(content)


class _Who(requests.auth.AuthBase):
    """Says who asks, and what kind of answer is understood."""

    def __init__(self, security: ClientSecurity) -> None:
        self._header = ""
        if security.token_file is not None:
            self._header = f"Bearer {read_secret(security.token_file).decode('latin-1')}"
        elif security.username:
            secret = b"" if security.passcode_file is None else read_secret(security.passcode_file)
            self._header = f"Basic {b64encode(security.username.encode() + b':' + secret).decode()}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Host", None)  # the library's lacks the port; the right one is put in its place
        if request.method == "POST":
            request.headers["Accept"] = JSON
        if self._header:
            request.headers["Authorization"] = self._header
        return request


class _Adapter(HTTPAdapter):
    """Connects over this program's TLS: its versions and suites, and the authorities that are configured, alone."""

    def __init__(self, security: ClientSecurity) -> None:
        assert security.tls is not None  # noqa: S101 - for mypy
        self._context = client_context(security.tls)
        self._name = security.server_name
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Hand the context to whatever opens connections."""
        super().init_poolmanager(*args, ssl_context=self._context, server_hostname=self._name, **kwargs)

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave the authorities as they are; the library would add its own."""


def _reason(error: BaseException) -> OSError:
    """Return the error of TLS below the libraries' own."""
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        if isinstance(found, ssl.SSLError):
            return found
        seen.add(id(found))
        inner = [one for one in (getattr(found, "reason", None), *found.args) if isinstance(one, BaseException)]
        found = inner[0] if inner else found.__cause__ or found.__context__
    return ssl.SSLError("TLS failed")
