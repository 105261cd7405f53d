"""TLS on the calling side, against peers that speak it rightly, wrongly and not at all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity

from dicom_node.deliver import scu
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.security import ClientSecurity, TlsFiles
from dicom_node.domain.types import Destination
from dicom_node.security.contexts import server_context
from tests import peers
from tests.authority import LONG_AGO, Authority
from tests.peers import CR, write_image

TITLE = {"calling_ae_title": "NODE", "timeout": 5.0}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


@pytest.fixture
def archive(authority: Authority) -> Iterator[Callable[..., tuple[str, int]]]:
    """Start an SCP over TLS with this context; yields a function that returns its address."""
    entities = []

    def start(context: ssl.SSLContext, *handlers: tuple[object, ...]) -> tuple[str, int]:
        entity = ApplicationEntity("ARCHIVE")
        entity.add_supported_context("1.2.840.10008.1.1")
        entity.add_supported_context(CR)
        server = entity.start_server(
            ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=list(handlers)
        )
        entities.append(entity)
        assert server is not None
        return server.server_address[:2]

    yield start
    for entity in entities:
        entity.shutdown()


def _to(address: tuple[str, int], files: TlsFiles, name: str = "127.0.0.1") -> Destination:
    return Destination("pacs", "ARCHIVE", *address, ClientSecurity(files, name))


def _fails(destination: Destination, match: str, timeout: float = 5.0) -> None:
    with pytest.raises(DestinationAwayError, match=rf"^pacs \(ARCHIVE at .*\):? {match}"):
        scu.echo(destination, calling_ae_title="NODE", timeout=timeout)


def test_an_object_is_sent_with_certificates_on_both_sides(authority, archive, tmp_path):
    kept = []

    def keep(event: evt.Event) -> int:
        kept.append(event.encoded_dataset(include_meta=False))
        return 0

    address = archive(
        server_context(authority.files("pacs.example", "127.0.0.1"), "required"), (evt.EVT_C_STORE, keep)
    )
    sent = write_image(tmp_path / "a.dcm", size=(1500, 1500))
    own = authority.files("node.example", passphrase=b"open sesame")
    destination = _to(address, own)
    assert scu.send(destination, (tmp_path / "a.dcm").read_bytes(), **TITLE).status == 0
    assert kept == [sent]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken(version, authority, archive):
    context = server_context(authority.files("pacs.example", "127.0.0.1"), "none")
    context.minimum_version = context.maximum_version = version
    scu.echo(_to(archive(context), TlsFiles(ca_certificates=authority.certificate)), **TITLE)


def test_an_older_version_is_not(authority, archive):
    context = server_context(authority.files("pacs.example", "127.0.0.1"), "none")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    _fails(_to(archive(context), TlsFiles(ca_certificates=authority.certificate)), "no shared TLS version")


def test_a_certificate_of_another_name_is_refused_and_both_names_are_told(authority, archive):
    address = archive(server_context(authority.files("pacs.example", "127.0.0.1"), "none"))
    trust = TlsFiles(ca_certificates=authority.certificate)
    _fails(
        _to(address, trust, "other.example"),
        r"its certificate is for 127\.0\.0\.1, pacs\.example, not for other\.example; set tls\.server_name",
    )
    scu.echo(_to(address, trust, "pacs.example"), **TITLE)


def test_a_certificate_that_has_ended_is_refused_and_the_day_told(authority, archive):
    address = archive(server_context(authority.files("old.example", "127.0.0.1", ends=LONG_AGO), "none"))
    _fails(
        _to(address, TlsFiles(ca_certificates=authority.certificate)), "its certificate.* ended on 2001-01-01"
    )


def test_a_certificate_of_an_unknown_authority_is_refused(authority, archive, tmp_path):
    other = Authority(tmp_path / "other")
    address = archive(server_context(other.files("pacs.example", "127.0.0.1"), "none"))
    _fails(
        _to(address, TlsFiles(ca_certificates=authority.certificate)),
        r"its certificate is signed by an authority \(.*\) that is not in tls\.ca_certificates",
    )


def test_a_server_that_wants_a_certificate_is_told_of(authority, archive):
    context = server_context(authority.files("pacs.example", "127.0.0.1"), "required")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    _fails(_to(archive(context), TlsFiles(ca_certificates=authority.certificate)), ".*client certificate")


def test_a_port_in_the_clear_is_told_of(tmp_path, authority):
    with peers.storescp(tmp_path / "plain") as peer:
        destination = _to((peer.host, peer.port), TlsFiles(ca_certificates=authority.certificate))
        _fails(
            destination, "it does not speak TLS on this port|it ended the connection within the TLS handshake"
        )


def test_a_handshake_that_never_ends_ends_after_the_timeout(authority):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        destination = _to(silent.getsockname(), TlsFiles(ca_certificates=authority.certificate))
        _fails(destination, "the TLS handshake was not finished in time", timeout=0.5)


def test_no_listener_is_told_of_as_without_tls(authority):
    destination = _to(("127.0.0.1", peers.free_port()), TlsFiles(ca_certificates=authority.certificate))
    _fails(destination, "no connection within 5 s, or it was refused")


def test_own_files_that_cannot_be_used_are_named_and_no_secret_is(authority, tmp_path):
    own = authority.files("sealed.example", passphrase=b"open sesame")
    wrong = tmp_path / "wrong"
    wrong.write_text("close sesame\n")
    with pytest.raises(DestinationAwayError, match=r"sealed\.example\.key .*passphrase") as away:
        scu.echo(_to(("127.0.0.1", 1), replace(own, passphrase_file=wrong)), **TITLE)
    assert "sesame" not in str(away.value)
    _fails(
        _to(("127.0.0.1", 1), replace(own, passphrase_file=None)), r".*is encrypted; name its passphrase_file"
    )
    _fails(
        _to(("127.0.0.1", 1), TlsFiles(ca_certificates=tmp_path / "none.pem")), r".*none\.pem cannot be read"
    )


def test_a_username_and_passcode_are_stated(tmp_path):
    said = []
    entity = ApplicationEntity("ARCHIVE")
    entity.add_supported_context("1.2.840.10008.1.1")

    def look(event: evt.Event) -> tuple[bool, bytes | None]:
        said.append((event.user_id_type, event.primary_field, event.secondary_field))
        return event.secondary_field != b"wrong", None

    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_USER_ID, look)])
    assert server is not None
    passcode = tmp_path / "passcode"
    try:
        for words in ("open sesame", "wrong"):
            passcode.write_text(words + "\n")
            security = ClientSecurity(username="node", passcode_file=passcode)
            destination = Destination("pacs", "ARCHIVE", *server.server_address[:2], security)
            if words == "wrong":
                with pytest.raises(DestinationAwayError, match=r"know the user 'node'") as away:
                    scu.echo(destination, **TITLE)
                assert "wrong" not in str(away.value)
            else:
                scu.echo(destination, **TITLE)
        scu.echo(replace(destination, security=ClientSecurity(username="alone")), **TITLE)
    finally:
        entity.shutdown()
    assert said == [(2, b"node", b"open sesame"), (2, b"node", b"wrong"), (1, b"alone", b"")]


def test_dcmtk_takes_a_report_over_mutual_tls(authority, tmp_path):
    server = authority.files("dcmtk.example", "127.0.0.1")
    options = ["+tls", str(server.private_key), str(server.certificate), "+cf", str(server.ca_certificates)]
    write_image(tmp_path / "a.dcm")
    with peers.storescp(tmp_path / "scp", *options) as peer:
        content = (tmp_path / "a.dcm").read_bytes()
        destination = _to((peer.host, peer.port), authority.files("node.example"))
        assert scu.send(destination, content, **TITLE).status == 0
        assert len(peer.files) == 1
        nobody = _to((peer.host, peer.port), TlsFiles(ca_certificates=authority.certificate))
        with pytest.raises(DestinationAwayError):
            scu.send(nobody, content, **TITLE)
        assert len(peer.files) == 1


def test_a_peer_that_hangs_within_the_association_is_left_after_the_timeout(authority, archive):
    go_on = threading.Event()
    context = server_context(authority.files("pacs.example", "127.0.0.1"), "none")
    address = archive(context, (evt.EVT_C_ECHO, lambda _event: go_on.wait(10) and 0))
    try:
        with pytest.raises(DestinationAwayError):
            scu.echo(
                _to(address, TlsFiles(ca_certificates=authority.certificate)),
                calling_ae_title="NODE",
                timeout=0.5,
            )
    finally:
        go_on.set()
