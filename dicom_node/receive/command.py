"""Reads the command set of a DIMSE message (PS3.7 section 6.3.1) strictly. Pure.

The services offered here are C-STORE, C-ECHO and what `offered` lists for each SOP class; a command of another one
ends the association.
"""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.domain.sop_classes import VERIFICATION
from dicom_node.receive.offered import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_EVENT_REPORT_RQ,
    N_EVENT_REPORT_RSP,
    N_GET_RQ,
    N_SET_RQ,
    OFFERED,
    may_name,
)

LARGEST_COMMAND = 8 * 1024
"""A C-STORE command has about 200 bytes."""

_NO_DATA_SET = 0x0101

_SOP_CLASS, _FIELD, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _INSTANCE = 0x2, 0x100, 0x110, 0x700, 0x800, 0x1000
_REQUESTED_CLASS, _ANSWERED_ID, _STATUS, _REQUESTED_INSTANCE = 0x3, 0x120, 0x900, 0x1001
_EVENT_TYPE, _ACTION_TYPE = 0x1002, 0x1008
_UIDS = (_SOP_CLASS, _REQUESTED_CLASS, _INSTANCE, _REQUESTED_INSTANCE)
_UNSIGNED_SHORT = (
    *(_FIELD, _MESSAGE_ID, _ANSWERED_ID, _PRIORITY, _DATA_SET_TYPE, _STATUS),
    *(_EVENT_TYPE, _ACTION_TYPE, 0x1031),
)
_REQUIRED = {
    C_STORE_RQ: (_SOP_CLASS, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE, _INSTANCE),
    C_ECHO_RQ: (_SOP_CLASS, _MESSAGE_ID, _DATA_SET_TYPE),
    C_FIND_RQ: (_SOP_CLASS, _MESSAGE_ID, _PRIORITY, _DATA_SET_TYPE),
    C_CANCEL_RQ: (_ANSWERED_ID, _DATA_SET_TYPE),
    N_EVENT_REPORT_RQ: (_SOP_CLASS, _MESSAGE_ID, _DATA_SET_TYPE, _INSTANCE, _EVENT_TYPE),
    N_CREATE_RQ: (_SOP_CLASS, _MESSAGE_ID, _DATA_SET_TYPE),
    N_GET_RQ: (_REQUESTED_CLASS, _MESSAGE_ID, _DATA_SET_TYPE, _REQUESTED_INSTANCE),
    N_SET_RQ: (_REQUESTED_CLASS, _MESSAGE_ID, _DATA_SET_TYPE, _REQUESTED_INSTANCE),
    N_ACTION_RQ: (_REQUESTED_CLASS, _MESSAGE_ID, _DATA_SET_TYPE, _REQUESTED_INSTANCE, _ACTION_TYPE),
    N_EVENT_REPORT_RSP: (_ANSWERED_ID, _DATA_SET_TYPE, _STATUS),
}


_OF_INSTANCES = frozenset({N_GET_RQ, N_SET_RQ, N_ACTION_RQ})
_WITHOUT_DATA_SET = frozenset({C_CANCEL_RQ, N_GET_RQ})


class MalformedCommandError(ValueError):
    """The command set cannot be answered; the text says why."""


@dataclass(frozen=True, slots=True)
class CommandSet:
    """What of a command decides how its message goes on. `sop_class` is "" where it names none."""

    field: int
    has_data_set: bool
    sop_class: str = ""


def parse(encoded: bytes) -> CommandSet:
    """Read a whole command set, Implicit VR Little Endian.

    Raises
    ------
    MalformedCommandError
        If elements overlap, are missing, have another length or number of values than they may, or the service is
        not offered.
    """
    elements = _elements(encoded)
    for element in _UNSIGNED_SHORT:
        if element in elements and len(elements[element]) != 2:
            raise MalformedCommandError(
                f"command element (0000,{element:04X}) of {len(elements[element])} bytes"
            )
    for element in _UIDS:
        if b"\\" in elements.get(element, b""):
            raise MalformedCommandError(f"command element (0000,{element:04X}) with several values")
    field = _number(elements, _FIELD)
    if field not in _REQUIRED:
        raise MalformedCommandError(
            f"command 0x{field:04X}; only C-STORE, C-ECHO and those of the services here are served"
        )
    for element in _REQUIRED[field]:
        if element not in elements:
            raise MalformedCommandError(f"command 0x{field:04X} without element (0000,{element:04X})")
    has_data_set = _number(elements, _DATA_SET_TYPE) != _NO_DATA_SET
    if field == C_ECHO_RQ:
        if has_data_set:
            raise MalformedCommandError("C-ECHO with a data set")
        if not _is(elements[_SOP_CLASS], VERIFICATION.uid):
            raise MalformedCommandError("C-ECHO of another SOP class than Verification")
    if field in _WITHOUT_DATA_SET and has_data_set:
        raise MalformedCommandError(f"command 0x{field:04X} with a data set")
    named = elements.get(_REQUESTED_CLASS if field in _OF_INSTANCES else _SOP_CLASS, b"")
    return CommandSet(field, has_data_set, named.rstrip(b"\0 ").decode("ascii", "replace"))


def check_offered(command: CommandSet, abstract_syntax: str) -> None:
    """Hold a command to the SOP class of its context.

    Raises
    ------
    MalformedCommandError
        If that class has no such service, or the command names another class.
    """
    offered = OFFERED.get(abstract_syntax)
    if offered is None:
        if command.field not in {C_STORE_RQ, C_ECHO_RQ}:
            raise MalformedCommandError(f"command 0x{command.field:04X} on a context of another SOP class")
        return
    if command.field == C_ECHO_RQ:
        return
    if command.field not in offered:
        raise MalformedCommandError(f"command 0x{command.field:04X} on a context of another SOP class")
    if command.sop_class and command.sop_class not in may_name(abstract_syntax):
        raise MalformedCommandError(f"command 0x{command.field:04X} of another SOP class than its context")


def _is(value: bytes, uid: str) -> bool:
    return value.rstrip(b"\0 ") == uid.encode("ascii")


def _elements(encoded: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(encoded):
        if at + 8 > len(encoded):
            raise MalformedCommandError("a command element is cut off")
        group = int.from_bytes(encoded[at : at + 2], "little")
        element = int.from_bytes(encoded[at + 2 : at + 4], "little")
        length = int.from_bytes(encoded[at + 4 : at + 8], "little")
        at += 8
        if group != 0:
            raise MalformedCommandError(f"element ({group:04X},{element:04X}) in a command set")
        if at + length > len(encoded):
            raise MalformedCommandError(
                f"command element (0000,{element:04X}) claims {length} bytes, {len(encoded) - at} are there"
            )
        if element in found:
            raise MalformedCommandError(f"command element (0000,{element:04X}) stands twice")
        found[element] = encoded[at : at + length]
        at += length
    return found


def _number(elements: dict[int, bytes], element: int) -> int:
    if element not in elements:
        raise MalformedCommandError(f"a command without element (0000,{element:04X})")
    return int.from_bytes(elements[element], "little")
