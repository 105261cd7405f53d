"""Builds storage commitment: what the receiver answers, and what is told later."""

from __future__ import annotations

from functools import partial

from dicom_node.config import Config
from dicom_node.domain.security import ClientSecurity
from dicom_node.domain.types import Destination
from dicom_node.node.opening import Node, destinations_of, now
from dicom_node.pipeline.commit import POLL_SECONDS, Commitments, report_commitments
from dicom_node.pipeline.schedule import Duty
from dicom_node.receive.commitment import CommitmentService


def service(node: Node) -> CommitmentService:
    """Return what answers peers on the associations that they open, and take up what a former process owes."""
    from dicom_node.deliver import commitment

    keeper = Commitments(node.engine, node.files, now)
    keeper.resume()
    return CommitmentService(keeper, commitment.read_report, commitment.report, now)


def duty(node: Node) -> Duty:
    """Return the periodic duty that tells reports on associations of the node's own."""
    from dicom_node.deliver import commitment

    deliver = node.config.deliver
    tell = partial(
        commitment.tell,
        calling_ae_title=node.config.receive.ae_title,  # as which it was asked
        timeout=deliver.timeout,
        maximum_pdu_size=deliver.maximum_pdu_size,
    )
    reach = partial(address_of, node.config)
    return (
        "report commitments",
        POLL_SECONDS,
        lambda: report_commitments(node.engine, node.files, reach, tell, now),
    )


def address_of(config: Config, ae_title: str, address: str) -> Destination | None:
    """Return where a peer is called: as `receive.peers` says, else as a destination of that AE title, else None."""
    from dicom_node.receive.guard import Request, known_peer

    peer = known_peer(Request(ae_title, "", address), [p for p in config.receive.peers if p.port is not None])
    if peer is None or peer.port is None:
        return next((d for d in destinations_of(config).values() if d.ae_title == ae_title), None)
    tls, host = peer.connect_tls, peer.host or address
    security = ClientSecurity(tls.files if tls.enabled else None, tls.server_name or host)
    return Destination(f"peer {ae_title}", ae_title, host, peer.port, security)
