"""Tells another system of a report by HL7 v2 over MLLP. Owns the connection and what an acknowledgement means.

MLLP (HL7 Transport Specification, release 1): a message between the bytes 0x0B and 0x1C 0x0D, one answer for each.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import ExitStack
from dataclasses import dataclass

from dicom_node.deliver import hl7_message
from dicom_node.domain.errors import CertificateError, DestinationAwayError, DestinationRefusedError, NodeError
from dicom_node.domain.types import Delivery, Destination
from dicom_node.security.contexts import client_context
from dicom_node.security.faults import explain_server

_BEGIN, _END = b"\x0b", b"\x1c\r"
_LARGEST_ANSWER = 65_536

_ACCEPTED = {"AA", "CA"}
_REJECTED = {"AR", "CR"}
_ERRORS = {
    "100": "segment sequence error",
    "101": "required field missing",
    "102": "data type error",
    "103": "table value not found",
    "200": "unsupported message type",
    "201": "unsupported event code",
    "202": "unsupported processing ID",
    "203": "unsupported version",
    "204": "unknown key identifier",
    "205": "duplicate key identifier",
    "206": "application record locked",
    "207": "application internal error",
}
_NEVER = {"200", "201", "202", "203"}
_PASSING = {"206", "207"}


@dataclass(frozen=True, slots=True)
class Answer:
    """An acknowledgement: MSA-1, MSA-2, and the error code ERR-3 where there is one."""

    code: str
    control_id: str
    error: str = ""


def where(destination: Destination) -> str:
    """Return the destination's name and address, for messages."""
    return f"{destination.name} (HL7 at {destination.host}:{destination.port})"


def notify(
    destination: Destination, report: bytes, *, sending: tuple[str, str], timeout: float = 30.0
) -> Delivery:
    """Send the message of one report and wait for its acknowledgement.

    Parameters
    ----------
    report
        A Part 10 file.
    sending
        Application and facility that the message is from.
    timeout
        Longest wait, in seconds, for the connection and for the answer as a whole.

    Raises
    ------
    DestinationAwayError
        If it cannot be reached, does not answer in time, answers something else, or rejects for now (AR).
        Sending the same message again does no harm: its control ID is the same.
    DestinationRefusedError
        If it answers that the message is in error (AE), or that it takes no such messages.
    CannotUnderstandError
        If `report` is no report.
    """
    message = hl7_message.oru(
        report, sending=sending, receiving=(destination.application, destination.facility)
    )
    answer = read_answer(_exchange(destination, message.content, timeout))
    if answer is None or (answer.control_id and answer.control_id != message.control_id):
        raise DestinationAwayError(
            f"{where(destination)} answered with something that is no acknowledgement of message {message.control_id}; "
            "check that this is an HL7 v2 port that takes ORU^R01"
        )
    if answer.code in _ACCEPTED:
        return Delivery(destination.name, message.sop_instance_uid, 0, f"acknowledged {answer.code}")
    raise _judge(destination, message.control_id, answer)


def probe(destination: Destination, *, timeout: float = 30.0) -> None:
    """Verify that a destination takes a connection, and speaks TLS where it should; HL7 has nothing to ask for.

    Raises
    ------
    DestinationAwayError
        If it does not.
    """
    with ExitStack() as stack:
        _connect(destination, timeout, stack)


def read_answer(content: bytes) -> Answer | None:
    """Return what an acknowledgement says; None where it is none. Its texts are left: they may name the patient."""
    segments = content.decode("latin-1").strip().replace("\n", "\r").split("\r")
    if not segments[0].startswith("MSH") or len(segments[0]) < 8:
        return None
    field, component = segments[0][3], segments[0][4]
    rows = [segment.split(field) for segment in segments]
    said = next((row for row in rows if row[0] == "MSA" and len(row) > 1), None)
    if said is None or not re.fullmatch("[AC][AER]", said[1]):
        return None
    errors = [row[3].split(component)[0] for row in rows if row[0] == "ERR" and len(row) > 3]
    known = next((error for error in errors if error in _ERRORS), "")
    return Answer(said[1], said[2] if len(said) > 2 else "", known)


def _judge(destination: Destination, control_id: str, answer: Answer) -> NodeError:
    """Return what follows from an answer that is no success (HL7 2.5.1 section 2.9.2.2 and table 0357)."""
    why = f", {answer.error} ({_ERRORS[answer.error]})" if answer.error else ""
    said = f"{where(destination)} answered {answer.code}{why} to message {control_id}"
    away = answer.error in _PASSING or (answer.code in _REJECTED and answer.error not in _NEVER)
    if away:
        return DestinationAwayError(f"{said}; it must be in order to take it")
    return DestinationRefusedError(
        f"{said}; find the message by its control ID in its log, then retry or cancel"
    )


def _exchange(destination: Destination, message: bytes, timeout: float) -> bytes:
    with ExitStack() as stack:
        connection = _connect(destination, timeout, stack)
        try:
            connection.sendall(_BEGIN + message + _END)
            return _read(connection, time.monotonic() + timeout)
        except TimeoutError as error:
            raise DestinationAwayError(
                f"{where(destination)} did not acknowledge within {timeout:g} s; whether it took the message is unknown"
            ) from error
        except OSError as error:
            raise DestinationAwayError(
                f"{where(destination)} ended the connection without an acknowledgement; "
                "whether it took the message is unknown"
            ) from error


def _read(connection: socket.socket, until: float) -> bytes:
    answer = b""
    while _END not in answer:
        left = until - time.monotonic()
        if left <= 0 or len(answer) > _LARGEST_ANSWER:
            raise TimeoutError
        connection.settimeout(left)
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionAbortedError
        answer += piece
    return answer[: answer.index(_END)].lstrip(_BEGIN)


def _connect(destination: Destination, timeout: float, stack: ExitStack) -> socket.socket:
    security = destination.security
    try:
        context = None if security.tls is None else client_context(security.tls)
    except CertificateError as error:
        raise DestinationAwayError(f"{where(destination)}: {error}") from error
    try:
        plain = stack.enter_context(socket.create_connection((destination.host, destination.port), timeout))
    except OSError as error:
        raise DestinationAwayError(
            f"{where(destination)}: no connection within {timeout:g} s, or it was refused; check that it runs and that "
            "host and port are right"
        ) from error
    if context is None:
        return plain
    try:
        return stack.enter_context(context.wrap_socket(plain, server_hostname=security.server_name))
    except (ssl.SSLError, OSError, ValueError) as error:
        told = explain_server(error, security.server_name, None)
        raise DestinationAwayError(f"{where(destination)}: {told}") from error
