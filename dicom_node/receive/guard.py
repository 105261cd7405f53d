"""Who may associate, for what, from where, and how many at once. Pure functions on values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dicom_node.config import Peer, Receive
from dicom_node.domain.sop_classes import STORAGE_CLASSES, STORAGE_COMMITMENT, VERIFICATION, sop_classes_named

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""The DICOM application context name (PS3.7 annex A)."""

EVERYTHING = frozenset(
    {VERIFICATION.uid, STORAGE_COMMITMENT.uid, *(storage.uid for storage in STORAGE_CLASSES)}
)
"""What is offered whatever is configured; further services come with `services`."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21) and, for the log, why.

    Attributes
    ----------
    result
        1 permanent, 2 transient.
    source
        1 service user, 2 service provider (ACSE related), 3 service provider (presentation related).
    reason
        With source 1: 2 application context name not supported, 3 calling, 7 called AE title not recognised.
        With source 2: 2 protocol version not supported. With source 3: 1 temporary congestion, 2 local limit
        exceeded.
    """

    result: int
    source: int
    reason: int
    why: str


@dataclass(frozen=True, slots=True)
class Request:
    """What an A-ASSOCIATE-RQ says of its sender and its addressee, and where it comes from."""

    calling: str
    called: str
    address: str
    proposes: frozenset[str] = EVERYTHING
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1


@dataclass(frozen=True, slots=True)
class Admission:
    """A welcome: the SOP classes that the association may use, and the peer it is counted with."""

    sop_classes: frozenset[str] = EVERYTHING
    peer: Peer | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Associations open now: in all, and by calling AE title."""

    total: int = 0
    by_title: dict[str, int] = field(default_factory=dict)


def judge(
    request: Request,
    config: Receive,
    associations: Open,
    *,
    stopping: bool,
    services: frozenset[str] = frozenset(),
) -> Admission | Rejection:
    """Return whether a request is welcome, and for what. `services` are the SOP classes of further services."""
    if not request.protocol_version & 1:
        return Rejection(1, 2, 2, f"protocol version 0x{request.protocol_version:04X}; bit 0 must be set")
    if request.application_context != APPLICATION_CONTEXT:
        return Rejection(
            1, 1, 2, f"application context {request.application_context}, not {APPLICATION_CONTEXT}"
        )
    admission = Admission(EVERYTHING | services, known_peer(request, config.peers))
    rejection = check_titles(
        request,
        own_ae_title=config.ae_title,
        require_called=config.require_called_ae_title,
        peers=config.peers,
    )
    if rejection and rejection.reason == CALLING and config.echo_open and VERIFICATION.uid in request.proposes:
        rejection, admission = None, Admission(frozenset({VERIFICATION.uid}))
    rejection = rejection or check_limit(associations.total, config.max_associations, stopping=stopping)
    if admission.peer is not None:
        open_now = associations.by_title.get(request.calling, 0)
        rejection = rejection or check_peer_limit(open_now, admission.peer)
        admission = Admission(classes_of(admission.peer, EVERYTHING | services), admission.peer)
    if not config.commitment:
        admission = replace(admission, sop_classes=admission.sop_classes - {STORAGE_COMMITMENT.uid})
    return rejection or admission


CALLING = 3
"""Reason "calling AE title not recognised", where the source is the service user."""


def check_titles(
    request: Request, *, own_ae_title: str, require_called: bool, peers: Sequence[Peer]
) -> Rejection | None:
    """Return why the request is rejected, or None if it is welcome.

    Parameters
    ----------
    own_ae_title
        This node's title.
    require_called
        Whether the called title must be this node's.
    peers
        Known senders; empty lets everyone in. A title may stand more than once.
    """
    if require_called and request.called != own_ae_title:
        return Rejection(1, 1, 7, f"called AE title {request.called!r} is not this node's, {own_ae_title!r}")
    if not peers or known_peer(request, peers):
        return None
    if all(peer.ae_title != request.calling for peer in peers):
        return Rejection(1, 1, CALLING, f"calling AE title {request.calling!r} is not among receive.peers")
    return Rejection(
        1,
        1,
        CALLING,
        f"{request.calling!r} may not call from {request.address}; see its receive.peers.addresses",
    )


def known_peer(request: Request, peers: Sequence[Peer]) -> Peer | None:
    """Return the first peer of that title that may call from that address."""
    for peer in peers:
        if peer.ae_title == request.calling and (
            not peer.addresses or is_within(request.address, peer.addresses)
        ):
            return peer
    return None


def classes_of(peer: Peer, offered: frozenset[str] = EVERYTHING) -> frozenset[str]:
    """Return the SOP classes that a peer may use, Verification and Storage Commitment always among them."""
    if not peer.sop_classes:
        return offered
    named = (uid for name in peer.sop_classes for uid in sop_classes_named(name))
    return frozenset({VERIFICATION.uid, STORAGE_COMMITMENT.uid, *named}) & offered


def check_limit(associations: int, maximum: int, *, stopping: bool) -> Rejection | None:
    """Return why one more association is too many, or None.

    Parameters
    ----------
    associations
        How many are established.
    maximum
        How many may be.
    stopping
        Whether the node is about to end.
    """
    if stopping:
        return Rejection(2, 3, 1, "the node is stopping")
    if associations >= maximum:
        return Rejection(
            2, 3, 2, f"{associations} associations are open; receive.max_associations is {maximum}"
        )
    return None


def check_peer_limit(associations: int, peer: Peer) -> Rejection | None:
    """Return why this peer has too many associations, or None."""
    if peer.max_associations is None or associations < peer.max_associations:
        return None
    return Rejection(
        2,
        3,
        2,
        f"{peer.ae_title!r} has {associations} associations open; its max_associations is {peer.max_associations}",
    )


def allowed_networks(config: Receive) -> tuple[str, ...]:
    """Return the networks that may connect at all; none stands for everyone.

    They are `allow_addresses` and, if that leaves anyone out or every peer states where it calls from, the
    addresses of the peers. An open C-ECHO is open to all addresses unless `allow_addresses` says otherwise.
    """
    of_peers = tuple(network for peer in config.peers for network in peer.addresses)
    if config.allow_addresses:
        return (*config.allow_addresses, *of_peers)
    if config.peers and all(peer.addresses for peer in config.peers) and not config.echo_open:
        return of_peers
    return ()


def check_address(address: str, networks: Sequence[str]) -> Rejection | None:
    """Return why nobody from this address is listened to, or None."""
    if not networks or is_within(address, networks):
        return None
    return Rejection(
        1, 1, CALLING, f"{address} is neither in receive.allow_addresses nor in an address of receive.peers"
    )


def is_within(address: str, networks: Sequence[str]) -> bool:
    """Return whether an IP address lies in one of the networks; IPv4 may come mapped into IPv6."""
    host: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(host, IPv6Address) and host.ipv4_mapped:
        host = host.ipv4_mapped
    return any(host in _network(network) for network in networks)


@lru_cache(maxsize=1024)
def _network(network: str) -> IPv4Network | IPv6Network:
    return ip_network(network, strict=False)
