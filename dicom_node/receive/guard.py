"""Who may associate: called title, calling title, address, and how many at once. Pure functions on values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

from dicom_node.config import Peer


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ (PS3.8 table 9-21) and, for the log, why.

    Attributes
    ----------
    result
        1 permanent, 2 transient.
    source
        1 service user, 3 service provider (presentation related).
    reason
        With source 1: 3 calling, 7 called AE title not recognised. With source 3: 1 temporary congestion,
        2 local limit exceeded.
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
    if not peers:
        return None
    same_title = [peer for peer in peers if peer.ae_title == request.calling]
    if not same_title:
        return Rejection(1, 1, 3, f"calling AE title {request.calling!r} is not among receive.peers")
    if not any(_from(request.address, peer) for peer in same_title):
        return Rejection(
            1, 1, 3, f"{request.calling!r} may not call from {request.address}; see its receive.peers.addresses"
        )
    return None


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


def _from(address: str, peer: Peer) -> bool:
    if not peer.addresses:
        return True
    host = ip_address(address.partition("%")[0])
    if isinstance(host, IPv6Address) and host.ipv4_mapped:
        host = host.ipv4_mapped
    return any(host in ip_network(network, strict=False) for network in peer.addresses)
