"""In which form a DICOMweb answer is accepted (PS3.18 section 8.7): one is offered of each kind, else 406."""

from __future__ import annotations

from fastapi import Request
from starlette.exceptions import HTTPException

JSON = "application/dicom+json"
EXPLICIT = "1.2.840.10008.1.2.1"
"""Transfer syntax of every object made here; also what PS3.18 section 8.7.3.5.2 makes the default."""


def _accepted(request: Request) -> list[tuple[str, dict[str, str]]]:
    """Return the media types that are accepted, each with its parameters."""
    given = request.headers.get("accept", "*/*")
    found = []
    for one in given[:2000].split(","):
        kind, *rest = (part.strip() for part in one.split(";"))
        pairs = (part.partition("=") for part in rest)
        found.append(
            (kind.lower(), {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs})
        )
    return found


def accept_json(request: Request) -> None:
    """See that DICOM JSON is accepted. Raises HTTPException with 406."""
    if not any(kind in (JSON, "application/json", "application/*", "*/*") for kind, _ in _accepted(request)):
        raise HTTPException(406, f"this is answered as {JSON}; accept it")


def accept_dicom(request: Request, *, alone: bool) -> bool:
    """Say whether one object is wanted as a single file, and not as multipart."""
    for kind, parameters in _accepted(request):
        if parameters.get("transfer-syntax", "*") not in ("*", EXPLICIT):
            continue
        if kind == "application/dicom" and alone:
            return True
        of_dicom = parameters.get("type", "application/dicom") == "application/dicom"
        if kind in ("multipart/*", "*/*") or (kind == "multipart/related" and of_dicom):
            return False
    raise HTTPException(
        406,
        f'this is answered as multipart/related; type="application/dicom", transfer syntax {EXPLICIT}; accept it',
    )
