"""Who may send, and on which port."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from dicom_node.config.tls import DestinationTls, Fingerprint, Identity, ReceiveTls
from dicom_node.config.values import AETitle, Network, PeerPort, Port, PositiveSeconds, Section
from dicom_node.domain.sop_classes import sop_classes_named


def _sop_classes(name: str) -> str:
    sop_classes_named(name)
    return name


SopClasses = Annotated[str, AfterValidator(_sop_classes)]
Count = Annotated[int, Field(ge=1)]


class Peer(Section):
    """A modality or PACS that may send. What is left out is not limited."""

    ae_title: AETitle
    addresses: tuple[Network, ...] = ()
    max_associations: Count | None = None
    sop_classes: tuple[SopClasses, ...] = ()
    tls: Literal["any", "required", "mutual"] = "any"
    certificate_names: tuple[str, ...] = ()
    certificate_sha256: tuple[Fingerprint, ...] = ()
    host: str = ""
    port: PeerPort | None = None
    connect_tls: DestinationTls = DestinationTls()

    @model_validator(mode="after")
    def _is_reached_as_it_calls(self) -> Peer:
        if self.port is None and (self.host or self.connect_tls.enabled):
            raise ValueError("host and connect_tls say how the peer is called, and port is not set")
        if self.port is not None and self.tls != "any" and not self.connect_tls.enabled:
            raise ValueError(f'tls = "{self.tls}": calling it on port {self.port} needs connect_tls.enabled')
        return self

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Peer:
        if (self.certificate_names or self.certificate_sha256) and self.tls != "mutual":
            raise ValueError('certificate_names and certificate_sha256 need tls = "mutual"')
        return self


class Receive(Section):
    """The SCP: C-STORE, C-ECHO, storage commitment."""

    ae_title: AETitle = "DICOMNODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    plain: bool = True
    require_called_ae_title: bool = False
    peers: tuple[Peer, ...] = ()
    on_conflict: Literal["accept", "refuse"] = "accept"
    commitment: bool = True
    mpps: bool = False
    availability: bool = False
    procedure_steps: bool = False
    procedure_step_codes: tuple[str, ...] = ("110004^DCM",)
    procedure_step_days: Annotated[int, Field(ge=1, le=36500)] = 30
    allow_addresses: tuple[Network, ...] = ()
    echo_open: bool = False
    max_associations: Count = 32
    max_connections_per_address: Count = 24
    maximum_pdu_size: Annotated[int, Field(ge=4096, le=4_194_304)] = 131_072
    maximum_dataset_megabytes: Count = 1024
    association_timeout: PositiveSeconds = 10.0
    network_timeout: PositiveSeconds = 60.0
    idle_timeout: PositiveSeconds = 60.0
    minimum_bytes_per_second: Annotated[int, Field(ge=0)] = 1000
    tls: ReceiveTls = ReceiveTls()
    identity: Identity = Identity()

    @model_validator(mode="after")
    def _steps_are_for_known_peers(self) -> Receive:
        if self.procedure_steps and not self.peers:
            raise ValueError("procedure_steps tells of patients; name who may ask in receive.peers")
        return self

    @model_validator(mode="after")
    def _someone_can_come_in(self) -> Receive:
        if not self.plain and not self.tls.enabled:
            raise ValueError("plain is false and tls.enabled too; nobody could associate")
        asking = sorted({peer.ae_title for peer in self.peers if peer.tls != "any"})
        if asking and not self.tls.enabled:
            raise ValueError(f"the peers {asking} must come over TLS; set tls.enabled")
        mutual = sorted({peer.ae_title for peer in self.peers if peer.tls == "mutual"})
        if mutual and self.tls.client_certificates == "none":
            raise ValueError(
                f'the peers {mutual} must show certificates, and tls.client_certificates is "none"'
            )
        return self
