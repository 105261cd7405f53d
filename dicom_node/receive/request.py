"""Reads an A-ASSOCIATE-RQ (PS3.8 section 9.3.2) strictly. Pure: bytes in, values out; no sockets, no rules.

What passes here is small and well formed, so that the library behind it meets no surprise.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

HEADER = 6
"""Bytes of a PDU before its content: type, reserved, length."""

A_ASSOCIATE_RQ = 0x01

LARGEST_REQUEST = 256 * 1024
"""128 contexts of 16 transfer syntaxes have about 60 kB; a user identity may add a token of some."""

_MOST_CONTEXTS = 128
_MOST_SYNTAXES = 64
_MOST_USER_ITEMS = 300
_SMALLEST_PDU = 16
_UID = re.compile(rb"[0-9.]{1,64}")
_ONCE = {0x51, 0x52, 0x53, 0x55, 0x58}
_KNOWN = frozenset(range(0x51, 0x5A))
_LENGTHS = {0x51: 4, 0x53: 4}


class MalformedRequestError(ValueError):
    """The bytes are no association request; the text says what was seen."""


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What a well-formed request says.

    Attributes
    ----------
    protocol_version
        Bit field; bit 0 is the only version there is.
    proposes
        Abstract syntax of each presentation context.
    """

    protocol_version: int
    called: str
    calling: str
    application_context: str
    proposes: frozenset[str]


def parse(pdu: bytes) -> AssociationRequest:
    """Read a whole A-ASSOCIATE-RQ PDU, its header included.

    Raises
    ------
    MalformedRequestError
        If an item overlaps another, stands too often, or breaks the standard's syntax.
    """
    if len(pdu) < HEADER + 68:
        raise MalformedRequestError(f"{len(pdu)} bytes; an A-ASSOCIATE-RQ has at least {HEADER + 68}")
    (version,) = struct.unpack_from(">H", pdu, HEADER)
    called, calling = _title(pdu[10:26], "called"), _title(pdu[26:42], "calling")
    context_name, user_information = "", 0
    proposed: list[str] = []
    ids: set[int] = set()
    for kind, content in _items(pdu[HEADER + 68 :]):
        if kind == 0x10:
            if context_name:
                raise MalformedRequestError("a second application context")
            context_name = _uid(content, "application context")
        elif kind == 0x20:
            identifier, abstract = _context(content)
            if identifier in ids:
                raise MalformedRequestError(f"presentation context {identifier} stands twice")
            if len(ids) == _MOST_CONTEXTS:
                raise MalformedRequestError(f"more than {_MOST_CONTEXTS} presentation contexts")
            ids.add(identifier)
            proposed.append(abstract)
        elif kind == 0x50:
            user_information += 1
            _check_user_information(content)
        else:
            raise MalformedRequestError(f"unknown item 0x{kind:02X}")
    if not context_name or not proposed or user_information != 1:
        raise MalformedRequestError(
            "application context, presentation contexts or user information are missing"
        )
    return AssociationRequest(version, called, calling, context_name, frozenset(proposed))


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        if at + 4 > len(content):
            raise MalformedRequestError("an item is cut off")
        kind, length = content[at], int.from_bytes(content[at + 2 : at + 4], "big")
        at += 4
        if at + length > len(content):
            raise MalformedRequestError(
                f"item 0x{kind:02X} claims {length} bytes, {len(content) - at} are there"
            )
        yield kind, content[at : at + length]
        at += length


def _context(content: bytes) -> tuple[int, str]:
    if len(content) < 4 or content[0] % 2 == 0:
        raise MalformedRequestError("a presentation context without an odd ID")
    abstract, syntaxes = [], 0
    for kind, value in _items(content[4:]):
        if kind == 0x30:
            abstract.append(_uid(value, "abstract syntax"))
        elif kind == 0x40:
            _uid(value, "transfer syntax")
            syntaxes += 1
        else:
            raise MalformedRequestError(f"unknown item 0x{kind:02X} in a presentation context")
    if len(abstract) != 1 or not 1 <= syntaxes <= _MOST_SYNTAXES:
        raise MalformedRequestError(
            f"a presentation context with {len(abstract)} abstract and {syntaxes} transfer syntaxes"
        )
    return content[0], abstract[0]


def _check_user_information(content: bytes) -> None:
    seen: set[int] = set()
    for count, (kind, value) in enumerate(_items(content), start=1):
        if count > _MOST_USER_ITEMS:
            raise MalformedRequestError(f"more than {_MOST_USER_ITEMS} user information items")
        if kind not in _KNOWN:
            raise MalformedRequestError(f"unknown user information item 0x{kind:02X}")
        if kind in _ONCE and kind in seen:
            raise MalformedRequestError(f"user information item 0x{kind:02X} stands twice")
        if len(value) != _LENGTHS.get(kind, len(value)):
            raise MalformedRequestError(f"user information item 0x{kind:02X} of {len(value)} bytes")
        if kind == 0x51 and 0 < int.from_bytes(value, "big") < _SMALLEST_PDU:
            raise MalformedRequestError(f"the peer takes PDUs of {int.from_bytes(value, 'big')} bytes only")
        seen.add(kind)
    if 0x51 not in seen:
        raise MalformedRequestError("the user information has no maximum length")


def _title(value: bytes, what: str) -> str:
    try:
        title = value.decode("ascii").strip(" \0")
    except UnicodeDecodeError:
        raise MalformedRequestError(f"the {what} AE title is no ASCII") from None
    if not title or not title.isprintable() or "\\" in title:
        raise MalformedRequestError(f"the {what} AE title is empty or has control characters")
    return title


def _uid(value: bytes, what: str) -> str:
    value = value.rstrip(b"\0 ")
    if not _UID.fullmatch(value):
        raise MalformedRequestError(f"the {what} is no UID")
    return value.decode("ascii")
