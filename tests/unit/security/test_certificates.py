from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import TlsFiles
from dicom_node.security import certificates
from dicom_node.security.contexts import CIPHER_SUITES, RenewedContext, client_context, server_context
from dicom_node.security.secret_files import read_secret
from tests.authority import LONG_AGO, Authority

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority") / "ca")


def _told(files: TlsFiles, now: datetime = NOW) -> list[tuple[bool, bool, str]]:
    return [(seen.ok, seen.warning, seen.detail) for seen in certificates.look(files, now)]


def test_a_certificate_in_order_says_until_when(authority):
    (told,) = _told(authority.files("good.example"))
    assert told[:2] == (True, False)
    assert f"is valid until {NOW + timedelta(days=365):%Y-%m-%d}" in told[2]


@pytest.mark.parametrize(("days", "warned"), [(29, True), (31, False)])
def test_one_that_ends_within_thirty_days_is_warned_of(days, warned, authority):
    (told,) = _told(authority.files("soon.example", ends=NOW + timedelta(days=days, minutes=1)))
    assert told[:2] == (True, warned)
    assert (f"in {days} days; renew it" in told[2]) is warned


def test_one_that_has_ended_is_a_fault(authority):
    (told,) = _told(authority.files("old.example", ends=LONG_AGO))
    assert told[:2] == (False, False)
    assert "ended on 2001-01-01; renew it" in told[2]


def test_one_that_has_not_begun_is_a_fault(authority):
    told = _told(authority.files("early.example"), NOW - timedelta(days=100))
    assert (told[0][0], "check this machine's clock" in told[0][2]) == (False, True)


def test_a_key_that_others_may_read_is_warned_of(authority):
    files = authority.files("loose.example")
    files.private_key.chmod(0o644)
    assert [told[:2] for told in _told(files)] == [(True, False), (True, True)]
    files.private_key.chmod(0o640)
    assert len(_told(files)) == 1


def test_a_key_of_another_certificate_is_a_fault(authority):
    files = replace(authority.files("a.example"), private_key=authority.files("b.example").private_key)
    assert _told(files)[1][0] is False
    assert "b.example.key is not the key of the certificate" in _told(files)[1][2]
    with pytest.raises(CertificateError, match="is not the key"):
        client_context(files)


def test_the_wrong_passphrase_and_a_missing_one_are_told_without_quoting_any(authority, tmp_path):
    sealed = authority.files("sealed.example", passphrase=b"open sesame")
    assert len(_told(sealed)) == 1
    server_context(sealed, "required")
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("close sesame\n")
    for files, match in (
        (replace(sealed, passphrase_file=wrong), "another passphrase"),
        (replace(sealed, passphrase_file=None), "is encrypted; name its passphrase_file"),
        (replace(authority.files("plain.example"), passphrase_file=wrong), "is not encrypted"),
    ):
        (fault,) = [detail for ok, _, detail in _told(files) if not ok]
        assert match in fault
        assert "sesame" not in fault + repr(files)


def test_files_that_are_missing_or_something_else_are_named(authority, tmp_path):
    rubbish = tmp_path / "rubbish.pem"
    rubbish.touch(0o600)
    rubbish.write_text("rubbish")
    files = TlsFiles(tmp_path / "none.pem", rubbish, None, rubbish)
    assert [told[0] for told in _told(files)] == [False, False, False]
    assert [detail for _, _, detail in _told(files) if "none.pem cannot be read" in detail]
    for bad in (files, replace(files, ca_certificates=None)):
        with pytest.raises(CertificateError):
            client_context(bad)


def test_an_old_authority_beside_its_successor_is_only_warned_of(authority, tmp_path):
    old = authority.files("old-ca.example", ends=LONG_AGO)
    both = tmp_path / "both.pem"
    both.write_bytes(authority.certificate.read_bytes() + old.certificate.read_bytes())
    assert [told[:2] for told in _told(TlsFiles(ca_certificates=both))] == [(True, True)]
    assert _told(TlsFiles(ca_certificates=old.certificate))[0][0] is False


def test_a_peers_certificate_says_names_and_fingerprint(authority):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    files = authority.files("Peer.Example", "10.0.0.1")
    (certificate, *_) = certificates.read_certificates(files.certificate)
    seen = certificates.peer_certificate(certificate.public_bytes(Encoding.DER))
    assert seen.names == {"peer.example", "10.0.0.1"}
    assert len(seen.sha256) == 64
    assert "Peer.Example" in seen.subject
    assert isinstance(certificate, x509.Certificate)
    with pytest.raises(CertificateError):
        certificates.peer_certificate(b"rubbish")


def test_contexts_speak_what_the_profile_allows(authority):
    import ssl

    files = authority.files("node.example")
    for context in (client_context(files), server_context(files, "none")):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        old = {c["name"] for c in context.get_ciphers() if c["protocol"] != "TLSv1.3"}
        assert old == set(CIPHER_SUITES)
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
    assert client_context(files).check_hostname
    assert client_context(files).verify_mode == ssl.CERT_REQUIRED


def test_a_renewed_certificate_is_used_and_a_broken_one_is_not(authority, caplog):
    files = authority.files("renewed.example")
    context = RenewedContext(files, lambda: server_context(files, "none"))
    first = context()
    assert context() is first
    files.certificate.write_text("half written")
    assert context() is first
    assert "the former stay" in caplog.text
    authority.files("renewed.example")
    second = context()
    assert second is not first
    assert context() is second


@pytest.mark.parametrize(("content", "match"), [(b"", "is empty"), (b"x" * 5000, "more than 4096 bytes")])
def test_a_secret_is_one_line(content, match, tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(CertificateError, match=match):
        read_secret(path)
    path.write_bytes(b" open sesame \r\nmore\n")
    assert read_secret(path) == b" open sesame "
