"""What keys of several sections have in common: titles, networks, ports, durations."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from dicom_node.domain.errors import InvalidIdentifierError
from dicom_node.domain.ids import check_ae_title


def _ae_title(value: str) -> str:
    try:
        return check_ae_title(value)
    except InvalidIdentifierError as error:
        raise ValueError(str(error)) from error


def _network(value: str) -> str:
    try:
        ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address or network; write 10.1.2.3 or 10.1.0.0/16") from None
    return value


def _written(pattern: str, right: str) -> AfterValidator:
    """Return what refuses a text that is written otherwise, and says what would be right."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{right} would be right")
        return value

    return AfterValidator(check)


def service_url(value: str) -> str:
    """Return a service's base URL without a slash at its end.

    Raises
    ------
    ValueError
        If it is none, or carries a name, a password, a query or a fragment.
    """
    parts = urlsplit(value)  # raises ValueError of itself where brackets or a port are wrong
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
        raise ValueError("is no URL of a service; http://host:port/path or https://host/path would be right")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("holds more than scheme, host, port and path; secrets belong in files")
    return value.rstrip("/")


AETitle = Annotated[str, AfterValidator(_ae_title)]
Network = Annotated[str, AfterValidator(_network)]
Name = Annotated[str, _written(r"[A-Za-z0-9_.-]{1,64}", "a name of 1 to 64 letters, digits, dots, _ and -")]
CodeString = Annotated[str, _written(r"[A-Z0-9 _]{1,16}", "1 to 16 capital letters, digits, spaces and _")]
CodeValue = Annotated[
    str, _written(r"[^\\\x00-\x1f]{1,16}", "a code value of 1 to 16 characters without backslash")
]
Port = Annotated[int, Field(ge=0, le=65535)]
PeerPort = Annotated[int, Field(ge=1, le=65535)]
_YEAR = 366 * 86_400.0  # keeps out infinity, which no clock and no socket takes
Seconds = Annotated[float, Field(ge=0, le=_YEAR)]
PositiveSeconds = Annotated[float, Field(gt=0, le=_YEAR)]


class Section(BaseModel):
    """A frozen section; a key that it does not know is a fault."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True
    )
