"""Identifiers as the standard defines them. Owns their syntax; knows nothing of where they come from."""

from __future__ import annotations

import re

from dicom_node.domain.errors import InvalidIdentifierError

_DIGITS = re.compile(r"[0-9. \0]*\Z")
_CODE = re.compile(r"[A-Z0-9 _]{0,16}\Z")
_NUMBER = re.compile(r"([-+0-9.eE \0]|nan|inf)*\Z")
_UID = re.compile(r"[0-9]+(\.[0-9]+)+\Z")
_STANDARD_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+\Z")

SELFTEST_AE_TITLE = "DICOM-SELFTEST"
"""Studies from this AE title are answered like any other but their reports stay in the node."""
DELIVERED_AE_TITLE = "SELFTEST-DELIVER"
"""Reports on studies from this one go to every destination, whatever its route."""


def quoted_uid(value: str) -> str:
    """Return what came where a UID belongs, as a message may hold it: text is not quoted, it may be a name."""
    return repr(value[:80]) if _DIGITS.match(value) else f"{len(value)} characters that are not digits and dots"


def quoted_code(value: str) -> str:
    """Return what came where a code belongs (VR CS, PS3.5 section 6.2), as a message may hold it; see `quoted_uid`."""
    return repr(value) if _CODE.match(value) else f"{len(value)} characters that are no code"


def quoted_number(value: str) -> str:
    """Return what came where a number belongs (VR DS), as a message may hold it; see `quoted_uid`."""
    return repr(value[:40]) if _NUMBER.match(value) else f"{len(value)} characters that are no number"


def check_uid(value: str, name: str = "UID", *, strict: bool = False) -> str:
    """Return `value` if it can be a DICOM UID (PS3.5 section 9.1).

    Components with leading zeros, which the standard forbids, pass unless `strict`: old modalities send them,
    and the study of such a modality shall come back too.

    Parameters
    ----------
    value
        The UID as received, without padding.
    name
        What the UID is of, for the message.
    strict
        Refuse leading zeros.

    Raises
    ------
    InvalidIdentifierError
        If it is empty, longer than 64 characters, or not dotted decimals.
    """
    if len(value) > 64 or not (_STANDARD_UID if strict else _UID).match(value):
        raise InvalidIdentifierError(
            f"{name} is {quoted_uid(value)}; a UID has at most 64 characters, digits with dots between them"
        )
    return value


def check_ae_title(value: str, name: str = "AE title") -> str:
    """Return the AE title without its insignificant spaces (PS3.5 section 6.2, VR AE).

    Raises
    ------
    InvalidIdentifierError
        If it is empty, longer than 16 characters, or holds a backslash, control or non-ASCII character.
    """
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or "\\" in title or not title.isascii() or not title.isprintable():
        raise InvalidIdentifierError(
            f"{name} is {value[:40]!r}; an AE title has 1 to 16 printable ASCII characters and no backslash"
        )
    return title
