"""Certificates for tests: an authority, and what it vouches for, as files."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from dicom_node.domain.security import TlsFiles

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._authority = trustme.CA()
        self._authority.cert_pem.write_to_path(str(self.certificate))

    def files(self, name: str, *hosts: str, ends: datetime | None = None, passphrase: bytes = b"") -> TlsFiles:
        """Write certificate and key for `hosts`, the name itself among them; trusts this authority.

        Parameters
        ----------
        ends
            When the certificate ends; by default in a year.
        passphrase
            What the key is encrypted with; it is then in a file of its own.
        """
        ends = ends or datetime.now(UTC) + timedelta(days=365)
        issued = self._authority.issue_cert(
            name, *hosts, common_name=name, not_before=ends - timedelta(days=400), not_after=ends
        )
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(_encrypted(issued.private_key_pem.bytes(), passphrase))
        passphrase_file = None
        if passphrase:
            passphrase_file = self.folder / f"{name}.passphrase"
            passphrase_file.touch(0o600)
            passphrase_file.write_bytes(passphrase + b"\n")
        return TlsFiles(certificate, key, passphrase_file, self.certificate)


def _encrypted(pem: bytes, passphrase: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    if not passphrase:
        return pem
    key = serialization.load_pem_private_key(pem, None)
    how = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
