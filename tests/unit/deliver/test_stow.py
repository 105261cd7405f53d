"""STOW-RS and QIDO-RS as their user: what each answer means, who is asked, and Orthanc as a real peer."""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.deliver import stow
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError, NotOfferedError
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.domain.types import Destination
from dicom_node.security.contexts import server_context
from tests.authority import Authority
from tests.peers import free_port, orthanc, require, write_image

SR, BASIC = "1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.88.11"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass
class Service:
    """A DICOMweb service that answers as it is told and keeps what it was asked."""

    status: int = 200
    body: bytes = b"{}"
    kind: str = "application/dicom+json"
    location: str = ""
    silent: bool = False
    per_class: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def stored(self) -> list[str]:
        """SOP Class UIDs of what was posted."""
        return [str(dcmread(BytesIO(part)).SOPClassUID) for part in map(_part, self.asked) if part]


def _part(asked: tuple[str, str, dict[str, str], bytes]) -> bytes:
    _, _, headers, body = asked
    if not body:
        return b""
    message = BytesParser().parsebytes(f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode() + body)
    (part,) = message.get_payload()
    assert part.get_content_type() == "application/dicom"
    return bytes(part.get_payload(decode=True))


@contextmanager
def serving(service: Service, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = (self.command, self.path, dict(self.headers), body)
            service.asked.append(asked)
            if service.silent:
                service.released.wait(30)
                return
            status, answer = service.status, service.body
            if part := _part(asked):
                status, answer = service.per_class.get(
                    str(dcmread(BytesIO(part)).SOPClassUID), (status, answer)
                )
            self.send_response(status)
            self.send_header("Content-Type", service.kind)
            self.send_header("Content-Length", str(len(answer)))
            if service.location:
                self.send_header("Location", service.location)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET = _answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            """Keep the terminal quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        service.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _at(port: int, scheme: str = "http", **security: object) -> Destination:
    url = f"{scheme}://127.0.0.1:{port}/dicom-web"
    return Destination(
        "vna",
        "",
        "127.0.0.1",
        port,
        ClientSecurity(**security),
        kind="stow",
        url=url,  # type: ignore[arg-type]
    )


def _forms(folder: Path, *classes: str) -> dict[str, object]:
    forms = {}
    for number, sop_class in enumerate(classes or (SR,)):
        path = folder / f"{number}.dcm"
        write_image(path, sop_class=sop_class, sop_instance_uid=f"1.2.3.{number}", PatientName="Gómez^Ñuño")
        forms[sop_class] = path.read_bytes
    return forms


def _account(uid: str = "1.2.3.0", failed: int | None = None, warned: int | None = None) -> bytes:
    item: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    if failed is not None:
        item["00081197"] = {"vr": "US", "Value": [failed]}
        return json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}).encode()
    if warned is not None:
        item["00081196"] = {"vr": "US", "Value": [warned]}
    return json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()


def _send(destination: Destination, forms: dict[str, object], timeout: float = 5.0):
    return stow.send_first(destination, forms, timeout=timeout)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, _account(), (0, "")),
        (200, b"", (0, "")),
        (200, _account(uid="9.9", failed=0xC000), (0, "")),
        (202, _account(warned=0xB000), (0xB000, "stored, data elements coerced")),
        (202, _account(failed=0x0111), (0x0111, "it holds this object already")),
        (409, _account(failed=0x0111), (0x0111, "it holds this object already")),
    ],
)
def test_what_it_has_stored_is_a_delivery_with_its_warning(status, body, told, tmp_path):
    service = Service(status, body)
    with serving(service) as port:
        delivery = _send(_at(port), _forms(tmp_path))
    assert (delivery.status, delivery.comment) == told
    assert (delivery.destination, delivery.sop_instance_uid, delivery.sent_as) == ("vna", "1.2.3.0", SR)


@pytest.mark.parametrize(
    ("status", "body", "error", "told"),
    [
        (200, _account(failed=0xA700), DestinationAwayError, "0xA700 (out of resources)"),
        (202, _account(failed=0x0110), DestinationAwayError, "0x0110 (processing failure)"),
        (409, _account(failed=0xA700), DestinationAwayError, "must have room"),
        (409, _account(failed=0x0124), DestinationRefusedError, "0x0124 (not authorised)"),
        (409, _account(failed=0xC122), DestinationRefusedError, "find the cause in its log"),
        (409, b"", DestinationRefusedError, "HTTP 409"),
        (400, b"", DestinationRefusedError, "HTTP 400"),
        (401, b"", DestinationAwayError, "token_file"),
        (403, b"", DestinationAwayError, "does not let this node in"),
        (404, b"", NotOfferedError, "url must be the base"),
        (415, b"", DestinationRefusedError, "HTTP 415"),
        (429, b"", DestinationAwayError, "HTTP 429"),
        (500, b"Jane Doe", DestinationAwayError, "HTTP 500"),
        (503, b"", DestinationAwayError, "HTTP 503"),
        (200, b"<html>", DestinationAwayError, "no DICOM JSON"),
        (200, b'{"00081199": 7}', DestinationAwayError, "no DICOM JSON"),
    ],
)
def test_what_it_has_not_stored_says_what_to_do_and_nothing_of_the_patient(status, body, error, told, tmp_path):
    with serving(Service(status, body)) as port, pytest.raises(error) as caught:
        _send(_at(port), _forms(tmp_path))
    assert type(caught.value) is error
    assert told in str(caught.value)
    assert not any(part in str(caught.value) for part in ("Gómez", "Doe"))


def test_a_class_that_it_does_not_store_is_followed_by_the_next(tmp_path):
    service = Service(200, _account("1.2.3.1"), per_class={SR: (409, _account(failed=0x0122))})
    with serving(service) as port:
        delivery = _send(_at(port), _forms(tmp_path, SR, BASIC))
    assert (delivery.sent_as, delivery.sop_instance_uid) == (BASIC, "1.2.3.1")
    assert service.stored == [SR, BASIC]


def test_the_token_is_read_for_each_request_and_the_host_has_its_port(tmp_path):
    token = tmp_path / "token"
    service = Service()
    with serving(service) as port:
        destination = _at(port, token_file=token)
        for secret in ("first", "second"):
            token.write_text(f"{secret}\n")
            _send(destination, _forms(tmp_path))
        user = _at(port, username="node", passcode_file=token)
        _send(user, _forms(tmp_path))
    seen = [headers["Authorization"] for _, _, headers, _ in service.asked]
    assert seen == ["Bearer first", "Bearer second", f"Basic {b64encode(b'node:second').decode()}"]
    assert {headers["Host"] for _, _, headers, _ in service.asked} == {f"127.0.0.1:{port}"}


def test_a_token_file_that_is_not_there_is_named_and_tried_again_later(tmp_path):
    with pytest.raises(DestinationAwayError, match="nothing cannot be read"):
        _send(_at(1, token_file=tmp_path / "nothing"), _forms(tmp_path))


def test_a_token_goes_nowhere_else(tmp_path):
    (tmp_path / "token").write_text("secret")
    elsewhere = Service()
    with serving(elsewhere) as other:
        service = Service(307, location=f"http://127.0.0.1:{other}/dicom-web/studies")
        with serving(service) as port, pytest.raises(DestinationRefusedError, match="sends elsewhere"):
            _send(_at(port, token_file=tmp_path / "token"), _forms(tmp_path))
    assert elsewhere.asked == []


def test_one_that_never_answers_is_away_after_the_timeout(tmp_path):
    began = time.monotonic()
    with serving(Service(silent=True)) as port, pytest.raises(DestinationAwayError, match=r"within 0\.3 s"):
        _send(_at(port), _forms(tmp_path), timeout=0.3)
    assert time.monotonic() - began < 10


def test_one_that_is_not_there_is_away(tmp_path):
    with pytest.raises(DestinationAwayError, match="no connection"):
        _send(_at(free_port()), _forms(tmp_path))


def test_an_object_is_found_only_if_it_is_that_object():
    uids = {"study_instance_uid": "1.2", "series_instance_uid": "1.2.1", "sop_instance_uid": "1.2.1.1"}
    service = Service(body=json.dumps([{"00080018": {"vr": "UI", "Value": ["1.2.1.1"]}}]).encode())
    with serving(service) as port:
        assert stow.holds(_at(port), **uids)
        service.body = json.dumps([{"00080018": {"vr": "UI", "Value": ["1.2.1.2"]}}]).encode()
        assert not stow.holds(_at(port), **uids)
        service.status, service.body = 204, b""
        assert not stow.holds(_at(port), **uids)
        service.status = 404
        with pytest.raises(NotOfferedError):
            stow.holds(_at(port), **uids)
    assert service.asked[0][1] == "/dicom-web/studies/1.2/series/1.2.1/instances?SOPInstanceUID=1.2.1.1"


def _tls(authority: Authority) -> tuple[ssl.SSLContext, TlsFiles]:
    return server_context(authority.files("127.0.0.1", "vna.example"), "none"), TlsFiles(
        ca_certificates=authority.certificate
    )


def test_over_tls_the_server_must_be_vouched_for_by_the_configured_authority_alone(tmp_path):
    context, files = _tls(Authority(tmp_path / "ca"))
    strange = TlsFiles(ca_certificates=Authority(tmp_path / "other").certificate)
    with serving(Service(), context) as port:
        assert _send(_at(port, "https", tls=files, server_name="127.0.0.1"), _forms(tmp_path)).status == 0
        assert _send(_at(port, "https", tls=files, server_name="vna.example"), _forms(tmp_path)).status == 0
        with pytest.raises(DestinationAwayError, match=r"not in tls\.ca_certificates"):
            _send(_at(port, "https", tls=strange, server_name="127.0.0.1"), _forms(tmp_path))
        with pytest.raises(DestinationAwayError, match=r"tls\.server_name"):
            _send(_at(port, "https", tls=files, server_name="other.example"), _forms(tmp_path))


def test_a_server_without_tls_is_told_so(tmp_path):
    _, files = _tls(Authority(tmp_path / "ca"))
    with serving(Service()) as port, pytest.raises(DestinationAwayError, match="does not speak TLS"):
        _send(_at(port, "https", tls=files, server_name="127.0.0.1"), _forms(tmp_path))


@pytest.mark.peer("orthanc")
def test_orthanc_stores_and_finds_the_report_under_the_patients_name(tmp_path):
    if not PLUGIN.exists():
        require(str(PLUGIN))
    path = tmp_path / "report.dcm"
    write_image(
        path,
        sop_class=SR,
        sop_instance_uid="1.2.3.0",
        study_instance_uid="1.2.9",
        SeriesInstanceUID="1.2.9.1",
        PatientName="Gómez^Ñuño",
    )
    uids = {"study_instance_uid": "1.2.9", "series_instance_uid": "1.2.9.1", "sop_instance_uid": "1.2.3.0"}
    with orthanc(tmp_path / "orthanc", Plugins=[str(PLUGIN)]) as pacs:
        destination = _at(pacs.http_port)
        stow.probe(destination)
        assert not stow.holds(destination, **uids)
        delivery = _send(destination, {SR: path.read_bytes}, timeout=30)
        assert (delivery.status, delivery.sop_instance_uid) == (0, "1.2.3.0")
        assert stow.holds(destination, **uids)
        assert _send(destination, {SR: path.read_bytes}, timeout=30).status in (0, 0x0111)
        (identifier,) = pacs.find("Instance", SOPInstanceUID="1.2.3.0")
        assert str(dcmread(BytesIO(pacs.file(identifier))).PatientName) == "Gómez^Ñuño"
