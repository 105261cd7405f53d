"""TLS on the listening side: a second port, certificates, and peers that must use them."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from dicom_node.config import load
from dicom_node.deliver import scu
from dicom_node.domain.errors import CertificateError, ConfigError, DestinationAwayError
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.domain.types import Destination
from dicom_node.receive.scp import Scp
from dicom_node.security.certificates import read_certificates
from tests.authority import LONG_AGO, Authority
from tests.live import until
from tests.peers import Orthanc, dcmtk, orthanc, write_image

Serve = Callable[..., Scp]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def secured(serve: Serve, authority: Authority) -> Serve:
    """Start an SCP with a TLS port beside the plain one."""
    node = authority.files("node.example", "127.0.0.1")

    def start(client_certificates: str = "required", **settings: Any) -> Scp:
        tls = {
            "enabled": True,
            "port": 0,
            "client_certificates": client_certificates,
            "certificate": node.certificate,
            "private_key": node.private_key,
            "ca_certificates": node.ca_certificates,
        }
        return serve(tls=tls, **settings)

    return start


def _destination(address: tuple[str, int], files: TlsFiles | None) -> Destination:
    return Destination("node", "DICOMNODE", *address, ClientSecurity(files, "127.0.0.1"))


def _echo(address: tuple[str, int], files: TlsFiles | None = None, calling: str = "CR1") -> None:
    scu.echo(_destination(address, files), calling_ae_title=calling, timeout=10.0)


def test_an_object_comes_in_with_certificates_on_both_sides(secured, authority, keeper, tmp_path):
    sent = write_image(tmp_path / "a.dcm", size=(1500, 1500))
    destination = _destination(secured().tls_address, authority.files("cr1.example"))
    assert scu.send_files(destination, [tmp_path / "a.dcm"], calling_ae_title="CR1") == [0]
    (received,) = keeper.received
    assert keeper.content(received)[received.dataset_offset :] == sent


def test_the_plain_port_stays_open_beside_it_unless_it_is_switched_off(secured, authority):
    scp = secured()
    assert scp.address != scp.tls_address
    _echo(scp.address)
    alone = secured(plain=False)
    assert alone.address == alone.tls_address
    _echo(alone.address, authority.files("cr1.example"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_taken(version, secured, authority):
    context = ssl.create_default_context(cafile=authority.certificate)
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(secured("none").tls_address, 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as channel,
    ):
        assert channel.version() == {771: "TLSv1.2", 772: "TLSv1.3"}[version]
        assert channel.compression() is None


def _refused(scp: Scp, context: ssl.SSLContext) -> bool:
    """Return whether a client is refused, at once or at its first read."""
    try:
        with (
            socket.create_connection(scp.tls_address, 10) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as channel,
        ):
            channel.settimeout(10)
            return channel.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def _heard(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """Wait until the log gives one of these reasons; then forget what it said."""

    def said() -> bool:
        reasons = [str(getattr(record, "reason", "")) for record in caplog.records]
        return any(word in reason for reason in reasons for word in words)

    until(said, f"the log says one of {words}", 20)
    caplog.clear()


def test_an_older_version_is_refused(secured, authority, caplog):
    scp = secured("none")
    context = ssl.create_default_context(cafile=authority.certificate)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert _refused(scp, context)
    _heard(caplog, "no shared TLS version")


def test_version_1_2_is_refused_where_1_3_is_asked_for(serve, authority):
    node = authority.files("node13.example", "127.0.0.1")
    tls = {"enabled": True, "port": 0, "client_certificates": "none", "minimum_version": "1.3"}
    scp = serve(tls={**tls, "certificate": node.certificate, "private_key": node.private_key})
    context = ssl.create_default_context(cafile=authority.certificate)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _refused(scp, context)
    _echo(scp.tls_address, TlsFiles(ca_certificates=authority.certificate))


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("none", "it showed no certificate"),
        ("other authority", "signed by an authority that is not in receive.tls.ca_certificates"),
        ("ended", "its certificate has ended"),
    ],
)
def test_a_client_without_a_good_certificate_is_refused_and_the_log_says_why(
    case, told, secured, authority, tmp_path, caplog
):
    context = ssl.create_default_context(cafile=authority.certificate)
    if case != "none":
        source = Authority(tmp_path / "other") if case == "other authority" else authority
        files = source.files("bad.example", ends=LONG_AGO if case == "ended" else None)
        context.load_cert_chain(files.certificate, files.private_key)
    assert _refused(secured(), context)
    _heard(caplog, told)


def test_a_client_without_certificate_is_taken_where_it_is_optional(secured, authority):
    scp = secured("optional")
    _echo(scp.tls_address, TlsFiles(ca_certificates=authority.certificate))
    _echo(scp.tls_address, authority.files("cr1.example"))


def test_a_handshake_that_stalls_holds_up_nobody_and_ends_at_its_deadline(secured, authority):
    scp = secured(association_timeout=1.0)
    with ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection(scp.tls_address, 10)) for _ in range(10)]
        for connection in stalled[:5]:
            connection.sendall(b"\x16\x03\x01\x02")
        _echo(scp.address)
        _echo(scp.tls_address, authority.files("cr1.example"))
        for connection in stalled:
            connection.settimeout(10)
            assert connection.recv(1) == b""


def test_what_is_spoken_on_the_wrong_port_ends_at_once_and_is_told(secured, caplog):
    scp = secured()
    request = b"\x01\0" + (68).to_bytes(4, "big") + bytes(68)
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"
    for address, sent, told in (
        (scp.tls_address, request, "it does not speak TLS on this port"),
        (scp.address, hello, "TLS is spoken on the port of receive.tls alone"),
    ):
        with socket.create_connection(address, 10) as peer:
            peer.sendall(sent)
            while peer.recv(100):
                pass
        _heard(caplog, told)


def test_a_peer_that_must_use_tls_is_rejected_in_the_clear(secured, authority, caplog):
    scp = secured("none", peers=[{"ae_title": "CR1", "tls": "required"}, {"ae_title": "CR2"}])
    with pytest.raises(DestinationAwayError, match="calling AE title not recognised"):
        _echo(scp.address)
    _heard(caplog, "'CR1' must come over TLS")
    _echo(scp.address, calling="CR2")
    _echo(scp.tls_address, TlsFiles(ca_certificates=authority.certificate))


def test_a_peer_is_held_to_its_certificate(secured, authority, caplog):
    own, other = authority.files("cr1.example"), authority.files("cr2.example")
    (certificate, *_) = read_certificates(own.certificate)
    from cryptography.hazmat.primitives.hashes import SHA256

    digest = certificate.fingerprint(SHA256()).hex(":").upper()
    for pin in ({"certificate_names": ["CR1.example"]}, {"certificate_sha256": [digest]}, {}):
        scp = secured("optional", peers=[{"ae_title": "CR1", "tls": "mutual", **pin}])
        _echo(scp.tls_address, own)
        nobody = replace(own, certificate=None, private_key=None)
        for wrong, told in ((nobody, ["showed none"]), (other, ["is in its", "is not in its"])):
            if wrong is other and not pin:
                continue
            with pytest.raises(DestinationAwayError, match="calling AE title not recognised"):
                _echo(scp.tls_address, wrong)
            _heard(caplog, *told)


def test_a_renewed_certificate_is_used_without_a_restart(serve, authority):
    node = authority.files("renewed.example", "127.0.0.1", ends=LONG_AGO)
    tls = {"enabled": True, "port": 0, "client_certificates": "none"}
    scp = serve(tls={**tls, "certificate": node.certificate, "private_key": node.private_key})
    trust = TlsFiles(ca_certificates=authority.certificate)
    with pytest.raises(DestinationAwayError, match="ended on 2001-01-01"):
        _echo(scp.tls_address, trust)
    authority.files("renewed.example", "127.0.0.1")
    _echo(scp.tls_address, trust)


def test_files_that_cannot_be_used_keep_the_node_from_listening(serve, authority, tmp_path):
    node = authority.files("broken.example")
    tls = {"enabled": True, "port": 0, "client_certificates": "none", "certificate": node.certificate}
    with pytest.raises(CertificateError, match=r"none\.key cannot be read"):
        serve(tls={**tls, "private_key": tmp_path / "none.key"})


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"plain": False}, "nobody could associate"),
        ({"tls": {"enabled": True}}, "needs certificate and private_key"),
        ({"tls": {"enabled": True, "certificate": "c", "private_key": "k"}}, "needs ca_certificates"),
        ({"tls": {"certificate": "c"}}, "belong together"),
        ({"peers": [{"ae_title": "CR1", "tls": "required"}]}, "set tls.enabled"),
        ({"peers": [{"ae_title": "CR1", "certificate_names": ["a"]}]}, 'need tls = "mutual"'),
        (
            {
                "peers": [{"ae_title": "CR1", "tls": "mutual"}],
                "tls": {"enabled": True, "certificate": "c", "private_key": "k", "client_certificates": "none"},
            },
            "must show certificates",
        ),
        (
            {"peers": [{"ae_title": "CR1", "tls": "mutual", "certificate_sha256": ["ab"]}]},
            "64 hexadecimal digits",
        ),
    ],
)
def test_a_configuration_that_could_not_work_is_refused(settings, fault):
    with pytest.raises(ConfigError, match=fault):
        load(flags={"receive": settings})


@pytest.mark.parametrize("version", ["", "+py", "+px"])
def test_dcmtk_echoes_and_stores_over_mutual_tls(version, secured, authority, keeper, tmp_path):
    scp = secured()
    client = authority.files("dcmtk.example")
    options = ["+tls", str(client.private_key), str(client.certificate), "+cf", str(client.ca_certificates)]
    options += [version] if version else []
    host, port = scp.tls_address
    write_image(tmp_path / "a.dcm")
    for program, arguments in (("echoscu", []), ("storescu", [str(tmp_path / "a.dcm")])):
        command = [dcmtk(program), *options, "-aec", "DICOMNODE", host, str(port), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
    assert len(keeper.received) == 1
    anonymous = [dcmtk("echoscu"), "+tla", "-ic", host, str(port)]
    assert subprocess.run(anonymous, capture_output=True, timeout=60, check=False).returncode != 0


@pytest.fixture(scope="module")
def pacs(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Run an Orthanc that speaks TLS alone, and asks for certificates."""
    files = authority.files("orthanc.example", "127.0.0.1")
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsPrivateKey": str(files.private_key),
        "DicomTlsCertificate": str(files.certificate),
        "DicomTlsTrustedCertificates": str(files.ca_certificates),
        "DicomTlsRemoteCertificateRequired": True,
    }
    with orthanc(tmp_path_factory.mktemp("orthanc"), **settings) as running:
        yield running


def _put(url: str, body: dict[str, Any] | str, method: str) -> None:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - always http
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - always http
        answer.read()


def test_orthanc_takes_and_sends_over_mutual_tls(pacs, secured, authority, keeper, tmp_path):
    write_image(tmp_path / "a.dcm")
    destination = replace(
        _destination((pacs.host, pacs.port), authority.files("node.example")), ae_title=pacs.ae_title
    )
    assert scu.send_files(destination, [tmp_path / "a.dcm"], calling_ae_title="DICOMNODE") == [0]
    (stored,) = pacs.find("Instance")
    host, port = secured().tls_address
    node = {"AET": "DICOMNODE", "Host": host, "Port": port, "UseDicomTls": True}
    _put(f"http://127.0.0.1:{pacs.http_port}/modalities/node", node, "PUT")
    _put(f"http://127.0.0.1:{pacs.http_port}/modalities/node/store", stored, "POST")
    assert [received.calling_ae_title for received in keeper.received] == [pacs.ae_title]
