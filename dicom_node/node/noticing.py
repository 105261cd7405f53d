"""Builds what takes notices of modalities and archives: performed steps, and which instances are available."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_node.node.opening import Node, now

if TYPE_CHECKING:
    from dicom_node.receive.services import Service


def services(node: Node) -> list[Service]:
    """Return those that the configuration switches on."""
    from dicom_node.pipeline.notices import Notices
    from dicom_node.receive.notices import AvailabilityNotices, PerformedSteps

    receive = node.config.receive
    ledger = Notices(node.engine, now, node.config.gather.hold_seconds)
    found: list[Service] = []
    if receive.mpps:
        found.append(PerformedSteps(ledger))
    if receive.availability:
        found.append(AvailabilityNotices(ledger))
    return found
