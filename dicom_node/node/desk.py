"""Builds the desk: what the reading worklist asks of the node, joined with pictures, priorities and peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dicom_node import __version__
from dicom_node.domain.reading import PeerView
from dicom_node.node.opening import Node, now

if TYPE_CHECKING:
    from dicom_node.pipeline.desk import NodeDesk
    from dicom_node.pipeline.desk_pictures import Pictures


@contextmanager
def desk(node: Node, pictures: Pictures | None = None) -> Iterator[NodeDesk]:
    """Make the desk of an opened node; what it does in the background ends with the block.

    Parameters
    ----------
    pictures
        Makes pictures; by default there are none.
    """
    from dicom_node.pipeline.desk import NodeDesk
    from dicom_node.pipeline.desk_banks import Banks
    from dicom_node.pipeline.desk_health import ARCHIVE, MODALITY_WORKLIST, UPS_WORKLIST, HealthDesk, Itself
    from dicom_node.pipeline.desk_list import Listing
    from dicom_node.pipeline.desk_orders import DeskOrders
    from dicom_node.pipeline.desk_patients import Patients
    from dicom_node.pipeline.desk_pictures import NoPictures
    from dicom_node.store import expected

    config, engine = node.config, node.engine
    patients = Patients(engine, node.files)
    banks = Banks(config.score.banks, engine, now)
    itself = Itself(
        __version__,
        config.receive.ae_title,
        config.store.root,
        config.store.reserve_megabytes * 1_000_000,
        node.destinations,
        (
            *(
                PeerView(one.name, ARCHIVE, None, "unused", f"{one.ae_title} at {one.host}:{one.port}")
                for one in config.archives
            ),
            *(PeerView(one.name, MODALITY_WORKLIST, None, "unused") for one in config.modality_worklists),
            *(PeerView(one.name, UPS_WORKLIST, None, "unused") for one in config.ups_sources),
        ),
    )
    made = NodeDesk(
        engine,
        node.files,
        patients=patients,
        listing=Listing(engine, patients, now, expected.priority),
        health=HealthDesk(engine, itself, now, lambda conn, _now: expected.due(conn)),
        banks=banks,
        orders=DeskOrders(engine, banks, node.audit, now),
        pictures=pictures or NoPictures(),
        audit=node.audit,
        clock=now,
    )
    try:
        yield made
    finally:
        made.close()
