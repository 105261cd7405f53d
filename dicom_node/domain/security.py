"""What secures a connection, as values: which files, which versions, which name. Paths only, never a secret."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ClientCertificates = Literal["required", "optional", "none"]
TlsVersion = Literal["1.2", "1.3"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Files of one side of TLS, in PEM.

    Attributes
    ----------
    certificate
        Own certificate, followed by those between it and its authority; None for a client without one.
    private_key
        Its key.
    passphrase_file
        File with the key's passphrase; None where the key is not encrypted.
    ca_certificates
        Authorities whose certificates are trusted on the other side.
    minimum_version
        Oldest TLS version that is spoken.
    """

    certificate: Path | None = None
    private_key: Path | None = None
    passphrase_file: Path | None = None
    ca_certificates: Path | None = None
    minimum_version: TlsVersion = "1.2"

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that is named."""
        named = (self.certificate, self.private_key, self.passphrase_file, self.ca_certificates)
        return tuple(path for path in named if path is not None)


@dataclass(frozen=True, slots=True)
class ClientSecurity:
    """How a destination is reached.

    Attributes
    ----------
    tls
        None for a connection in the clear.
    server_name
        Name or address that the destination's certificate must be for.
    username
        Stated in user identity negotiation (PS3.7 D.3.3.7); empty for none.
    passcode_file
        File with the passcode; None for a username alone.
    token_file
        File with a bearer token, for destinations on the web.
    """

    tls: TlsFiles | None = None
    server_name: str = ""
    username: str = ""
    passcode_file: Path | None = None
    token_file: Path | None = None


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What a peer's verified certificate says of it.

    Attributes
    ----------
    subject
        Distinguished name, as in RFC 4514.
    names
        Common name, DNS names and IP addresses, in lower case.
    sha256
        Fingerprint of the whole certificate, 64 hexadecimal digits in lower case.
    """

    subject: str
    names: frozenset[str]
    sha256: str
