"""A connection that has not associated yet: how far it has come, and how much of its request is there."""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field
from typing import Any

from dicom_node.receive.guard import Rejection
from dicom_node.receive.request import A_ASSOCIATE_RQ, HEADER, LARGEST_REQUEST


class Stage(enum.Enum):
    """How far a connection has come."""

    HANDSHAKE = enum.auto()
    REQUEST = enum.auto()
    ENDING = enum.auto()


@dataclass(eq=False)
class Arrival:
    """A connection that waits at the gate."""

    connection: socket.socket
    peer: tuple[Any, ...]
    deadline: float
    stage: Stage
    refusal: Rejection | None = None
    data: bytearray = field(default_factory=bytearray)

    @property
    def address(self) -> str:
        """Where it comes from."""
        return str(self.peer[0])

    @property
    def needed(self) -> int:
        """Bytes that are still to come, as far as is known."""
        if len(self.data) < HEADER:
            return HEADER - len(self.data)
        return HEADER + int.from_bytes(self.data[2:6], "big") - len(self.data)


_SPOKEN = {
    b"\x16": "; TLS is spoken on the port of receive.tls alone",
    b"G": "; it may be HTTP",
    b"P": "; it may be HTTP",
    b"H": "; it may be HTTP",
}


def no_request(data: bytearray) -> str | None:
    """Return why what has come so far is the beginning of no association request, if it is none."""
    if data[0] != A_ASSOCIATE_RQ:
        what = _SPOKEN.get(bytes(data[:1]), "")
        return f"the first byte is 0x{data[0]:02X}, no association request{what}"
    length = int.from_bytes(data[2:6], "big") if len(data) >= HEADER else 0
    return (
        f"a request of {length} bytes; at most {LARGEST_REQUEST} are read" if length > LARGEST_REQUEST else None
    )
