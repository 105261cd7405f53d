"""TLS as PS3.15 B.12 asks: the BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile.

TLS 1.2 and 1.3, nothing older; for 1.2 the cipher suites that RFC 9325 section 4.2 recommends; no compression,
no renegotiation, no resumption, and no falling back to a connection in the clear. The retired Non-Downgrading
profile (B.10) is met as well; the Modified one (B.13) is not, for want of its CCM and Camellia suites.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from dicom_node.domain.errors import CertificateError
from dicom_node.domain.security import ClientCertificates, TlsFiles
from dicom_node.security.certificates import check_pair, read_certificates
from dicom_node.security.channel import TlsChannel
from dicom_node.security.secret_files import read_secret

log = logging.getLogger(__name__)

CIPHER_SUITES = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)
"""For TLS 1.2, by OpenSSL's names. TLS 1.3 has its own, all of which are allowed."""

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


def server_context(files: TlsFiles, client_certificates: ClientCertificates) -> ssl.SSLContext:
    """Return the context of a listening side.

    Parameters
    ----------
    client_certificates
        Whether a client must, may, or need not show a certificate that `files.ca_certificates` vouch for.

    Raises
    ------
    CertificateError
        If a file cannot be used.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    context.verify_mode = _VERIFY[client_certificates]
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a calling side. The other side's certificate and name are always verified.

    Raises
    ------
    CertificateError
        If a file cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


class RenewedContext:
    """A context that is built anew when one of its files has changed: connections after that use the new ones.

    Files that cannot be used, as while they are being replaced, are logged and the former context stays.

    Parameters
    ----------
    files
        What is watched.
    build
        Makes the context; called at once.

    Raises
    ------
    CertificateError
        If the files cannot be used now.
    """

    def __init__(self, files: TlsFiles, build: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._build = build
        self._stamp = _stamp(files)
        self._context = build()
        self._lock = threading.Lock()

    def __call__(self) -> ssl.SSLContext:
        """Return the context for a connection that begins now."""
        with self._lock:
            stamp = _stamp(self._files)
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._context = self._build()
                except CertificateError as error:
                    log.warning(
                        "changed certificates cannot be used; the former stay", extra={"reason": str(error)}
                    )
                else:
                    log.info("changed certificates are used from now on")
            return self._context


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslsocket_class = TlsChannel
    context.minimum_version = _VERSIONS[files.minimum_version]
    context.set_ciphers(":".join(CIPHER_SUITES))
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    if files.ca_certificates is not None:
        try:
            context.load_verify_locations(files.ca_certificates)
        except OSError as error:  # ssl.SSLError is one
            read_certificates(files.ca_certificates)
            raise CertificateError(
                f"{files.ca_certificates} holds a certificate that cannot be used"
            ) from error
    if files.certificate is not None:
        _load_pair(context, files)
    return context


def _load_pair(context: ssl.SSLContext, files: TlsFiles) -> None:
    assert files.certificate is not None  # noqa: S101 - for mypy

    def passphrase() -> bytes:  # without a function OpenSSL would ask at the terminal
        return b"" if files.passphrase_file is None else read_secret(files.passphrase_file)

    try:
        context.load_cert_chain(files.certificate, files.private_key, passphrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        check_pair(files)
        raise CertificateError(f"{files.certificate} and {files.private_key} cannot be used for TLS") from error


def _stamp(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(_stamp_of(path) for path in files.paths)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_ino, seen.st_size
