"""The audit trail: what is told in it, where it is kept, and where it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dicom_node.config.values import PeerPort, PositiveSeconds, Section
from dicom_node.domain.security import TlsFiles


class Syslog(Section):
    """The audit repository that messages are sent to; none without `host`."""

    host: str = ""
    port: PeerPort = 6514
    transport: Literal["tls", "udp"] = "tls"
    ca_certificates: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    passphrase_file: Path | None = None
    timeout: PositiveSeconds = 10.0

    @model_validator(mode="after")
    def _files_of_tls(self) -> Syslog:
        if self.host and self.transport == "tls" and self.ca_certificates is None:
            raise ValueError(
                "ca_certificates is missing; name a PEM file of the authorities that vouch for the server"
            )
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together; name both or neither")
        return self

    @property
    def files(self) -> TlsFiles:
        """What TLS needs as the value that the rest of the program takes."""
        return TlsFiles(self.certificate, self.private_key, self.passphrase_file, self.ca_certificates)


class AuditSection(Section):
    """The audit trail (PS3.15 A.5). Without `path` it is kept in the folder ``audit`` of the store."""

    enabled: bool = True
    path: Path | None = None
    max_megabytes: Annotated[int, Field(ge=1)] = 10
    keep: Annotated[int, Field(ge=1)] = 100
    associations: Literal["all", "rejected"] = "all"
    patient_id: bool = False
    source_id: str = ""
    site_id: str = ""
    syslog: Syslog = Syslog()
