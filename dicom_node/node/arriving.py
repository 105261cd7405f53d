"""Builds what follows when an image comes, whether it was sent to the node or fetched by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from dicom_node.domain.types import Ingested, Received
from dicom_node.node.opening import Node, now
from dicom_node.pipeline.custody import Associations
from dicom_node.pipeline.ingest import Ingest
from dicom_node.pipeline.transfers import Transfers

if TYPE_CHECKING:
    from dicom_node.receive.association import AssociationFacts


class Arrivals(NamedTuple):
    """The calls around the images of one association."""

    ingest: Callable[[Received], Ingested]
    opened: Callable[[AssociationFacts], None]
    ended: Callable[[str, str], None]


def arrivals(node: Node) -> Arrivals:
    """Return what takes custody of images, and keeps account of the associations that bring them."""
    associations = Associations(node.engine, now)
    transfers = Transfers(node.audit, now)

    def opened(a: AssociationFacts) -> None:
        associations.opened(a.id, a.calling, a.called, a.peer_address, a.at)
        transfers.opened(a.id, a.calling, a.called, a.peer_address, a.at)

    def ended(association_id: str, how: str) -> None:
        try:
            associations.ended(association_id, how)
        finally:  # the database may be away; what was stored is told of in any case
            transfers.ended(association_id, how)

    return Arrivals(Ingest(node.engine, node.files, node.device_uid, now, transfers.stored), opened, ended)
