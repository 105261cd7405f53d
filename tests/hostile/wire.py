"""DICOM's upper layer as bare bytes, right and wrong: what a library would never send (PS3.7, PS3.8)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Mapping

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"
IMPLICIT = "1.2.840.10008.1.2"
ECHO_CONTEXT, CR_CONTEXT, SECOND_CR_CONTEXT = 1, 3, 5
CONTEXTS = ((ECHO_CONTEXT, VERIFICATION), (CR_CONTEXT, CR), (SECOND_CR_CONTEXT, CR))
COMMITMENT, COMMITMENT_INSTANCE, COMMITMENT_CONTEXT = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", 7

RELEASE_RQ = b"\x05\0\0\0\0\x04\0\0\0\0"
RELEASE_RP = b"\x06\0\0\0\0\x04\0\0\0\0"
ABORT = b"\x07\0\0\0\0\x04\0\0\0\0"
REJECT = b"\x03\0\0\0\0\x04\0\x01\x01\x01"

C_STORE_RQ, C_ECHO_RQ, C_FIND_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0020, 0x0FFF
N_EVENT_REPORT_RQ, N_GET_RQ, N_ACTION_RQ, N_EVENT_REPORT_RSP = 0x0100, 0x0110, 0x0130, 0x8100
NO_DATA_SET = 0x0101


def pdu(kind: int, content: bytes, length: int | None = None) -> bytes:
    """Return a PDU; `length` may lie."""
    return struct.pack(">BBL", kind, 0, len(content) if length is None else length) + content


def item(kind: int, content: bytes, length: int | None = None) -> bytes:
    """Return an item of an association PDU; `length` may lie."""
    return struct.pack(">BBH", kind, 0, len(content) if length is None else length) + content


def context(identifier: int, abstract: str, syntaxes: Iterable[str] = (IMPLICIT,)) -> bytes:
    """Return a presentation context item of a request."""
    inner = item(0x30, abstract.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes((identifier, 0, 0, 0)) + inner)


def user_information(*more: bytes, largest: int = 16384) -> bytes:
    """Return the user information item, with further sub-items."""
    return item(0x50, item(0x51, struct.pack(">L", largest)) + item(0x52, b"1.2.3.4") + b"".join(more))


def request(
    *,
    calling: str = "HOSTILE",
    called: str = "DICOMNODE",
    version: int = 1,
    application_context: str = APPLICATION_CONTEXT,
    contexts: bytes | None = None,
    information: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    if contexts is None:
        contexts = b"".join(context(identifier, abstract) for identifier, abstract in CONTEXTS)
    fixed = struct.pack(">HH16s16s32x", version, 0, called.ljust(16).encode(), calling.ljust(16).encode())
    name = item(0x10, application_context.encode())
    return pdu(1, fixed + name + contexts + (information or user_information()) + more)


def request_with_commitment() -> bytes:
    """Return an A-ASSOCIATE-RQ that proposes Storage Commitment, too."""
    proposed = (*CONTEXTS, (COMMITMENT_CONTEXT, COMMITMENT))
    return request(contexts=b"".join(context(identifier, abstract) for identifier, abstract in proposed))


def fragment(context_id: int, control: int, content: bytes = b"") -> bytes:
    """Return a presentation data value: control 1 command, 3 its last, 0 data set, 2 its last."""
    return struct.pack(">LBB", len(content) + 2, context_id, control) + content


def p_data(*fragments: bytes) -> bytes:
    """Return a P-DATA-TF PDU."""
    return pdu(4, b"".join(fragments))


def element(group: int, number: int, value: bytes, length: int | None = None) -> bytes:
    """Return an element in Implicit VR Little Endian; `length` may lie."""
    value += b"\0" * (len(value) % 2) if length is None else b""
    return struct.pack("<HHL", group, number, len(value) if length is None else length) + value


def us(value: int) -> bytes:
    """Return an unsigned short."""
    return struct.pack("<H", value)


def command(
    field: int,
    *,
    sop_class: str = CR,
    instance: str | None = None,
    data_set: int = NO_DATA_SET,
    message_id: int = 1,
    more: bytes = b"",
) -> bytes:
    """Return a command set with its group length."""
    elements = (
        element(0, 0x2, sop_class.encode()) + element(0, 0x100, us(field)) + element(0, 0x110, us(message_id))
    )
    if field == C_CANCEL_RQ:
        elements += element(0, 0x120, us(message_id))
    elements += element(0, 0x700, us(0)) + element(0, 0x800, us(data_set))
    elements += element(0, 0x1000, instance.encode()) if instance else b""
    elements += more
    return element(0, 0, struct.pack("<L", len(elements))) + elements


_OF_COMMITMENT = {
    N_EVENT_REPORT_RQ: (0x2, 0x100, 0x110, 0x800, 0x1000, 0x1002),
    N_ACTION_RQ: (0x3, 0x100, 0x110, 0x800, 0x1001, 0x1008),
    N_EVENT_REPORT_RSP: (0x100, 0x120, 0x800, 0x900),
}


def commitment(
    field: int,
    changed: Mapping[int, bytes] = {},
    *,
    context_id: int = COMMITMENT_CONTEXT,
    data_set: int = 0,
    leave_out: int = 0,
) -> bytes:
    """Return a command of Storage Commitment as one PDU; elements may be changed or left out."""
    elements = {number: COMMITMENT.encode() for number in (0x2, 0x3)}
    elements |= {number: COMMITMENT_INSTANCE.encode() for number in (0x1000, 0x1001)}
    elements |= {number: us(1) for number in (0x110, 0x120, 0x1002, 0x1008)}
    elements |= {0x100: us(field), 0x800: us(data_set), 0x900: us(0), **changed}
    content = b"".join(element(0, n, elements[n]) for n in _OF_COMMITMENT[field] if n != leave_out)
    return p_data(fragment(context_id, 3, element(0, 0, struct.pack("<L", len(content))) + content))


def commitment_data_set(instance: str, transaction: str = "2.25.7") -> bytes:
    """Return an Action or Event Information with one reference as one PDU, Implicit VR Little Endian."""
    reference = element(8, 0x1150, CR.encode()) + element(8, 0x1155, instance.encode())
    item_ = element(0xFFFE, 0xE000, reference)
    content = element(8, 0x1195, transaction.encode()) + element(8, 0x1199, item_)
    return p_data(fragment(COMMITMENT_CONTEXT, 2, content))


def echo(message_id: int = 1) -> bytes:
    """Return a C-ECHO as one PDU."""
    content = command(C_ECHO_RQ, sop_class=VERIFICATION, message_id=message_id)
    return p_data(fragment(ECHO_CONTEXT, 3, content))


def store_command(instance: str = "1.2.3.4") -> bytes:
    """Return the command of a C-STORE as one PDU."""
    return p_data(fragment(CR_CONTEXT, 3, command(C_STORE_RQ, instance=instance, data_set=0)))


def data_set(instance: str, pixels: int = 40_000) -> bytes:
    """Return a small CR image, Implicit VR Little Endian."""
    values = (
        *((0x0008, 0x0016, CR.encode()), (0x0008, 0x0018, instance.encode()), (0x0008, 0x0060, b"CR")),
        *((0x0010, 0x0010, b"Phantom^Hostile"), (0x0010, 0x0020, b"0")),
        *((0x0020, 0x000D, f"{instance}.1".encode()), (0x0020, 0x000E, f"{instance}.2".encode())),
    )
    return b"".join(element(*value) for value in values) + element(0x7FE0, 0x0010, bytes(pixels))


class Wire:
    """One connection."""

    def __init__(self, address: tuple[str, int], source: str = "127.0.0.1", timeout: float = 30.0) -> None:
        self.socket = socket.create_connection(address, timeout=timeout, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, content: bytes) -> None:
        self.socket.sendall(content)

    def read(self) -> bytes:
        """Return the next PDU; nothing if the connection ended."""
        try:
            header = self._exactly(6)
            return header + self._exactly(struct.unpack(">L", header[2:])[0]) if len(header) == 6 else b""
        except ConnectionError:
            return b""

    def _exactly(self, count: int) -> bytes:
        content = b""
        while len(content) < count and (more := self.socket.recv(count - len(content))):
            content += more
        return content

    def associate(self, sent: bytes = b"") -> bytes:
        """Send a request and return the answer."""
        self.send(sent or request())
        return self.read()

    def status(self) -> int | None:
        """Return the status of the next response; None if the association ended instead."""
        answer = self.read()
        if not answer or answer[0] != 4:
            return None
        at = answer.find(b"\0\0\0\x09\x02\0\0\0")
        return int.from_bytes(answer[at + 8 : at + 10], "little")

    def end(self) -> bytes:
        """Return the last PDU before the connection ended."""
        last = b""
        while content := self.read():
            last = content
        return last

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def echo_once(address: tuple[str, int], called: str = "DICOMNODE", timeout: float = 30.0) -> float:
    """Associate, C-ECHO and release as a good peer does; return the seconds it took.

    Raises
    ------
    OSError
        If it was not answered with Success.
    """
    begin = time.monotonic()
    with Wire(address, timeout=timeout) as wire:
        if wire.associate(request(calling="GOOD", called=called))[:1] != b"\x02":
            raise ConnectionRefusedError("not associated")
        wire.send(echo())
        if wire.status() != 0:
            raise ConnectionAbortedError("C-ECHO was not answered with Success")
        taken = time.monotonic() - begin
        _release(wire)
    return taken


def store_once(
    address: tuple[str, int], instance: str, called: str = "DICOMNODE", timeout: float = 30.0
) -> float:
    """Associate, C-STORE and release; return the seconds it took. Raises OSError as `echo_once` does."""
    begin = time.monotonic()
    content = data_set(instance)
    with Wire(address, timeout=timeout) as wire:
        if wire.associate(request(calling="GOOD", called=called))[:1] != b"\x02":
            raise ConnectionRefusedError("not associated")
        wire.send(store_command(instance))
        size = 16_000
        for at in range(0, len(content), size):
            wire.send(
                p_data(fragment(CR_CONTEXT, 2 if at + size >= len(content) else 0, content[at : at + size]))
            )
        if wire.status() != 0:
            raise ConnectionAbortedError("C-STORE was not answered with Success")
        taken = time.monotonic() - begin
        _release(wire)
    return taken


def _release(wire: Wire) -> None:
    wire.send(RELEASE_RQ)
    wire.read()
