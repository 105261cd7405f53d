"""Builds the duty that asks an archive which images it has of a study that is arriving."""

from __future__ import annotations

from functools import partial

from dicom_node.node.opening import Node, now
from dicom_node.node.retrieving import archive_named, fetcher
from dicom_node.pipeline.counting import Counting
from dicom_node.pipeline.schedule import Duty

_ROUND_SECONDS = 2.0


def duties(node: Node) -> list[Duty]:
    """Return it; none where no archive is to be asked."""
    name = node.config.gather.count_archive
    if not name:
        return []
    on_offer = partial(fetcher(node).on_offer, archive_named(node.config, name))
    return [
        (f"count in {name}", _ROUND_SECONDS, Counting(node.engine, node.config.gather, on_offer, now)),
    ]
