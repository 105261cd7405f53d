"""MLLP and its acknowledgements, against a peer that answers as it is told and against python-hl7's own server."""

from __future__ import annotations

import asyncio
import threading

import hl7
import pytest
from hl7.mllp import start_hl7_server

from dicom_node.deliver import mllp
from dicom_node.domain.errors import CannotUnderstandError, DestinationAwayError, DestinationRefusedError
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.domain.types import Destination
from dicom_node.report import sr
from dicom_node.security.contexts import server_context
from tests.authority import Authority
from tests.peers import free_port
from tests.peers_hl7 import acknowledgement, listening
from tests.unit.report.builders import AT, EQUIPMENT, several

FROM = ("dicom-node", "Phantom hospital")


@pytest.fixture(scope="module")
def report() -> bytes:
    return sr.build(*several(), EQUIPMENT, AT).content


def _hang_up(_message: str) -> bytes:
    raise ConnectionResetError


def _at(port: int, **security: object) -> Destination:
    return Destination(
        "ris",
        "",
        "127.0.0.1",
        port,
        ClientSecurity(**security),  # type: ignore[arg-type]
        kind="hl7",
        application="RIS",
        facility="HOSP",
    )


def _notify(port: int, report: bytes, timeout: float = 5.0, **security: object):
    return mllp.notify(_at(port, **security), report, sending=FROM, timeout=timeout)


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_an_accepted_message_is_a_delivery(code, report):
    with listening(acknowledgement(code)) as (port, heard):
        delivery = _notify(port, report)
    assert (delivery.destination, delivery.status, delivery.comment) == ("ris", 0, f"acknowledged {code}")
    assert heard[0].split("|")[2:6] == ["dicom-node", "Phantom hospital", "RIS", "HOSP"]


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (acknowledgement("AE"), DestinationRefusedError, "answered AE to message"),
        (
            acknowledgement("AE", "ERR||PID^1^5|101^missing|E"),
            DestinationRefusedError,
            "101 (required field missing)",
        ),
        (
            acknowledgement("AE", "ERR|||207^internal|E"),
            DestinationAwayError,
            "207 (application internal error)",
        ),
        (acknowledgement("AR"), DestinationAwayError, "answered AR to message"),
        (acknowledgement("CR"), DestinationAwayError, "answered CR to message"),
        (acknowledgement("AR", "ERR|||200^type|E"), DestinationRefusedError, "200 (unsupported message type)"),
        (acknowledgement("AR", "ERR|||Jane|E"), DestinationAwayError, "answered AR to message"),
        (acknowledgement("AA", control_id="ANOTHER"), DestinationAwayError, "no acknowledgement of message"),
        (acknowledgement("OK"), DestinationAwayError, "no acknowledgement of message"),
        (
            lambda _: b"HTTP/1.1 400 Bad Request\r\n\x1c\r",
            DestinationAwayError,
            "check that this is an HL7 v2 port",
        ),
        (lambda _: b"\x0bMSH\r\x1c\r", DestinationAwayError, "no acknowledgement of message"),
        (lambda _: b"\x0b\x1c\r", DestinationAwayError, "no acknowledgement of message"),
        (lambda _: b"\x0bMSH|^~\\&|", DestinationAwayError, "did not acknowledge within"),
        (lambda _: b"x" * 100_000, DestinationAwayError, "did not acknowledge within"),
        (lambda _: b"", DestinationAwayError, "did not acknowledge within"),
    ],
)
def test_any_other_answer_says_what_follows_and_nothing_of_the_patient(answer, error, told, report):
    with listening(answer) as (port, _), pytest.raises(error) as caught:
        _notify(port, report, timeout=1.0)
    assert type(caught.value) is error
    assert told in str(caught.value)
    assert "Jane" not in str(caught.value)


def test_one_that_hangs_up_or_is_not_there_is_away(report):
    with listening(_hang_up) as (port, _), pytest.raises(DestinationAwayError, match="ended the connection"):
        _notify(port, report)
    with pytest.raises(DestinationAwayError, match="host and port are right"):
        _notify(free_port(), report)


def test_what_is_no_report_is_not_sent():
    with listening(acknowledgement("AA")) as (port, heard), pytest.raises(CannotUnderstandError):
        _notify(port, b"no report")
    assert heard == []


def test_a_second_attempt_sends_the_same_message(report):
    with listening(acknowledgement("AA")) as (port, heard):
        _notify(port, report)
        _notify(port, report)
    assert heard[0] == heard[1]


def test_over_tls_its_certificate_is_verified(report, tmp_path):
    files = Authority(tmp_path / "ca").files("127.0.0.1")
    trusted = TlsFiles(ca_certificates=files.ca_certificates)
    strange = TlsFiles(ca_certificates=Authority(tmp_path / "other").certificate)
    with listening(acknowledgement("AA"), server_context(files, "none")) as (port, heard):
        mllp.probe(_at(port, tls=trusted, server_name="127.0.0.1"))
        assert _notify(port, report, tls=trusted, server_name="127.0.0.1").status == 0
        with pytest.raises(DestinationAwayError, match="not in"):
            _notify(port, report, tls=strange, server_name="127.0.0.1")
    assert len(heard) == 1


def test_a_probe_finds_nobody_there():
    with pytest.raises(DestinationAwayError):
        mllp.probe(_at(free_port()))


def test_another_implementation_of_hl7_takes_the_message_and_is_understood(report):
    taken: list[hl7.Message] = []
    ready, over = threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async def take(reader, writer):
            message = await reader.readmessage()
            taken.append(message)
            writer.writemessage(message.create_ack())
            await writer.drain()
            writer.close()

        server = await start_hl7_server(take, host="127.0.0.1", port=0, encoding="utf-8")
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()
        async with server:
            while not over.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        delivery = _notify(ports[0], report)
    finally:
        over.set()
        thread.join(10)
    assert (delivery.status, delivery.comment) == (0, "acknowledged AA")
    assert str(taken[0].segment("PID")[5]) == "Doe^Jane"
