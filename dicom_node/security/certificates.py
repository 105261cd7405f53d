"""Certificates and keys in files: what they say, whether they fit together, how long they last.

The moment comes in as an argument. No message quotes a key or a passphrase.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import PeerCertificate, TlsFiles
from dicom_node.security.secret_files import open_to_others, read_secret

WARN_BEFORE = timedelta(days=30)
"""A certificate of one's own that ends earlier than this is warned of."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing seen in the files of one side. What is not `ok` keeps TLS from working."""

    ok: bool
    warning: bool
    detail: str


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates of a PEM file, in order.

    Raises
    ------
    CertificateError
        If it cannot be read or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CertificateError(f"{path} holds no certificate in PEM (BEGIN CERTIFICATE)") from error


def read_key(path: Path, passphrase_file: Path | None) -> PrivateKeyTypes:
    """Return a private key.

    Raises
    ------
    CertificateError
        If it cannot be read, or its passphrase is missing or wrong.
    """
    passphrase = None if passphrase_file is None else read_secret(passphrase_file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        return load_pem_private_key(content, passphrase)
    except TypeError:  # the library's own text is about its arguments
        if passphrase is None:
            raise CertificateError(f"{path} is encrypted; name its passphrase_file") from None
        raise CertificateError(f"{path} is not encrypted; leave passphrase_file out") from None
    except ValueError:
        wrong = "or its passphrase_file holds another passphrase" if passphrase else "(BEGIN PRIVATE KEY)"
        raise CertificateError(f"{path} holds no private key in PEM {wrong}") from None


def check_pair(files: TlsFiles) -> None:
    """Look whether certificate and private key can be read and belong together.

    Raises
    ------
    CertificateError
        If not.
    """
    certificate = read_certificates(_named(files.certificate))[0]
    key = read_key(_named(files.private_key), files.passphrase_file)
    if _public(key.public_key()) != _public(certificate.public_key()):
        told = f"{files.private_key} is not the key of the certificate {files.certificate}"
        raise CertificateError(f"{told}; both must be of one pair")


def peer_certificate(der: bytes) -> PeerCertificate:
    """Return what a certificate says of its owner.

    Raises
    ------
    CertificateError
        If it cannot be parsed.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return PeerCertificate(
            subject=certificate.subject.rfc4514_string(),
            names=names_of(certificate),
            sha256=certificate.fingerprint(SHA256()).hex(),
        )
    except ValueError as error:
        raise CertificateError("the peer's certificate cannot be parsed") from error


def names_of(certificate: x509.Certificate) -> frozenset[str]:
    """Return the common name, DNS names and IP addresses of a certificate, in lower case."""
    found = {str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        alternatives = None
    if alternatives is not None:
        found |= set(alternatives.get_values_for_type(x509.DNSName))
        found |= {str(address) for address in alternatives.get_values_for_type(x509.IPAddress)}
    return frozenset(name.lower() for name in found)


def look(files: TlsFiles, now: datetime) -> list[Seen]:
    """Look at everything that one side's TLS depends on; tell all that is wrong, not the first alone."""
    seen: list[Seen] = []
    certificate = None
    if files.certificate is not None:
        try:
            certificate = read_certificates(files.certificate)[0]
            seen.append(_lasts(certificate, files.certificate, now, own=True))
        except CertificateError as error:
            seen.append(Seen(False, False, str(error)))
    if files.private_key is not None:
        seen += _look_at_key(files, certificate)
    if files.ca_certificates is not None:
        seen += _look_at_authorities(files.ca_certificates, now)
    return seen


def _look_at_key(files: TlsFiles, certificate: x509.Certificate | None) -> list[Seen]:
    seen = [
        Seen(True, True, f"{path} may be read by every user of this machine; chmod 0600 it, or 0640")
        for path in (files.private_key, files.passphrase_file)
        if path is not None and open_to_others(path)
    ]
    try:
        if certificate is None:
            read_key(_named(files.private_key), files.passphrase_file)
        else:
            check_pair(files)
    except CertificateError as error:
        seen.append(Seen(False, False, str(error)))
    return seen


def _look_at_authorities(path: Path, now: datetime) -> list[Seen]:
    try:
        authorities = read_certificates(path)
    except CertificateError as error:
        return [Seen(False, False, str(error))]
    looked = [_lasts(authority, path, now, own=False) for authority in authorities]
    # One old authority beside its successor is how authorities are renewed.
    if any(one.ok for one in looked):
        return [one if one.ok else Seen(True, True, one.detail) for one in looked if one.warning or not one.ok]
    return looked


def _lasts(certificate: x509.Certificate, path: Path, now: datetime, *, own: bool) -> Seen:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    subject = certificate.subject.rfc4514_string() or "a certificate without a subject"
    what = f"{path}: {subject}" if own else f"{path}: the authority {subject}"
    if now >= ends:
        return Seen(False, False, f"{what} ended on {ends:%Y-%m-%d}; renew it")
    if now < begins:
        return Seen(False, False, f"{what} begins only on {begins:%Y-%m-%d}; check this machine's clock")
    days = (ends - now).days
    if ends - now < WARN_BEFORE:
        return Seen(True, True, f"{what} ends on {ends:%Y-%m-%d}, in {days} days; renew it")
    return Seen(True, False, f"{what} is valid until {ends:%Y-%m-%d}")


def _named(path: Path | None) -> Path:
    if path is None:
        raise CertificateError("a certificate needs its private key, and a key its certificate; name both")
    return path


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
