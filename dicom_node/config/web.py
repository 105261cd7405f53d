"""The reading worklist: where it listens, who may look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config.tls import TlsSection
from dicom_node.config.values import Network, Port, Section, service_url


def _base_path(value: str) -> str:
    if value and (not value.startswith("/") or value.endswith("/") or "//" in value):
        raise ValueError(f"{value!r} is no path before the pages; write /node, or leave it empty")
    return value


class WebTls(TlsSection):
    """The server's own certificate."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.enabled and self.certificate is None:
            raise ValueError("needs certificate and private_key: this server's own")
        return self


class Oidc(Section):
    """An identity provider that vouches for people (OpenID Connect). None without `issuer`.

    `role_claim` names the claim with a person's roles; who has none of the three gets no further.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_file: Path | None = None
    ca_certificates: Path | None = None
    name_claim: str = "preferred_username"
    role_claim: str = "roles"
    viewer: str = "dicom-node-viewer"
    operator: str = "dicom-node-operator"
    admin: str = "dicom-node-admin"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.issuer:
            service_url(self.issuer)
            if not self.client_id or self.client_secret_file is None:
                raise ValueError("issuer needs client_id and client_secret_file, as the provider gave them")
        return self


class Web(Section):
    """The reading worklist: pages, JSON API, DICOMweb."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8080
    base_path: Annotated[str, AfterValidator(_base_path)] = ""
    host_names: tuple[str, ...] = ()
    trusted_proxies: tuple[Network, ...] = ()
    session_hours: Annotated[float, Field(gt=0, le=168)] = 12.0
    idle_minutes: Annotated[float, Field(gt=0, le=10_080)] = 60.0
    tls: WebTls = WebTls()
    oidc: Oidc = Oidc()

    @property
    def secure(self) -> bool:
        """Whether browsers reach it over TLS: its own, or that of a proxy in front."""
        return self.tls.enabled or bool(self.trusted_proxies)
