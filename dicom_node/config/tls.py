"""TLS and user identity: which files, on which port, of whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from dicom_node.config.values import Port, Section
from dicom_node.domain.security import TlsFiles


class TlsSection(Section):
    """What both sides of TLS have in common: files in PEM."""

    enabled: bool = False
    certificate: Path | None = None
    private_key: Path | None = None
    passphrase_file: Path | None = None
    ca_certificates: Path | None = None
    minimum_version: Literal["1.2", "1.3"] = "1.2"

    @model_validator(mode="after")
    def _pairs(self) -> TlsSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; name both or neither")
        if self.passphrase_file is not None and self.private_key is None:
            raise ValueError("passphrase_file is for a private_key, and none is named")
        return self

    @property
    def files(self) -> TlsFiles:
        """The section as the value that the rest of the program takes."""
        return TlsFiles(
            self.certificate, self.private_key, self.passphrase_file, self.ca_certificates, self.minimum_version
        )


class ReceiveTls(TlsSection):
    """A second port, that speaks TLS."""

    port: Port = 2762
    client_certificates: Literal["required", "optional", "none"] = "required"

    @model_validator(mode="after")
    def _complete(self) -> ReceiveTls:
        if self.enabled and self.certificate is None:
            raise ValueError("needs certificate and private_key: this node's own")
        if self.enabled and self.client_certificates != "none" and self.ca_certificates is None:
            raise ValueError(
                'needs ca_certificates: who vouches for the peers\' certificates; or client_certificates = "none"'
            )
        return self


class DestinationTls(TlsSection):
    """How a destination is reached over TLS."""

    server_name: str = ""

    @model_validator(mode="after")
    def _complete(self) -> DestinationTls:
        if self.enabled and self.ca_certificates is None:
            raise ValueError("needs ca_certificates: who vouches for the destination's certificate")
        return self


class Identity(Section):
    """User identity negotiation of those who associate."""

    users_file: Path | None = None
    required: bool = True


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", digits):
        raise ValueError(
            "is no SHA-256 fingerprint; 64 hexadecimal digits would be right, with or without colons"
        )
    return digits


Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
