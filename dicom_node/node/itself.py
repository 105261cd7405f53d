"""How the self-test reaches the running node: as a modality would, on its plain port or, without one, over TLS."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dicom_node.config import Config
from dicom_node.domain.errors import ConfigError
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.security.certificates import names_of, read_certificates


def itself(config: Config, username: str = "", passcode_file: Path | None = None) -> Destination:
    """Return the running node of a configuration as a destination.

    Parameters
    ----------
    username, passcode_file
        Stated in user identity negotiation, where the node asks for it.

    Raises
    ------
    ConfigError
        If only the running node knows its port, or its certificate cannot be verified from here.
    CertificateError
        If its certificate cannot be read.
    """
    receive = config.receive
    key, port = ("receive.port", receive.port) if receive.plain else ("receive.tls.port", receive.tls.port)
    if port == 0:
        raise ConfigError([f"{key}: is 0, a free port that only the running node knows; name one"])
    host = "127.0.0.1" if receive.host in {"0.0.0.0", "::"} else receive.host  # noqa: S104 - compared, not bound
    node = Destination("the node itself", receive.ae_title, host, port)
    security = ClientSecurity(username=username, passcode_file=passcode_file)
    if not receive.plain:
        security = replace(security, tls=receive.tls.files, server_name=_own_name(config))
    return replace(node, security=security)


def _own_name(config: Config) -> str:
    tls = config.receive.tls
    if tls.certificate is None or tls.ca_certificates is None:
        raise ConfigError(
            ["receive.tls.ca_certificates: is not set; the self-test verifies the node's own certificate by it"]
        )
    return min(names_of(read_certificates(tls.certificate)[0]), default="")
