"""What peers may propose: SOP classes and transfer syntaxes, as data. Knows nothing of sockets or files.

Reports (SR) are not among them: an object of the kind the node makes itself cannot enter it (loop guard).
"""

from __future__ import annotations

from functools import lru_cache

from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.domain.sop_classes import (
    SERVICE_CLASSES,
    STORAGE_CLASSES,
    STORAGE_COMMITMENT,
    UPS_EVENT,
    VERIFICATION,
    Entry,
)

__all__ = [
    "STORAGE_CLASSES",
    "STORAGE_COMMITMENT",
    "TRANSFER_SYNTAXES",
    "VERIFICATION",
    "Entry",
    "is_storage",
    "supported_contexts",
]

TRANSFER_SYNTAXES = (
    Entry("1.2.840.10008.1.2.1", "Explicit VR Little Endian"),
    Entry("1.2.840.10008.1.2", "Implicit VR Little Endian"),
    Entry("1.2.840.10008.1.2.2", "Explicit VR Big Endian"),
    Entry("1.2.840.10008.1.2.1.99", "Deflated Explicit VR Little Endian"),
    Entry("1.2.840.10008.1.2.4.50", "JPEG Baseline (Process 1)"),
    Entry("1.2.840.10008.1.2.4.51", "JPEG Extended (Process 2 & 4)"),
    Entry("1.2.840.10008.1.2.4.57", "JPEG Lossless, Non-Hierarchical (Process 14)"),
    Entry("1.2.840.10008.1.2.4.70", "JPEG Lossless, Non-Hierarchical, First-Order Prediction"),
    Entry("1.2.840.10008.1.2.4.80", "JPEG-LS Lossless"),
    Entry("1.2.840.10008.1.2.4.81", "JPEG-LS Lossy (Near-Lossless)"),
    Entry("1.2.840.10008.1.2.4.90", "JPEG 2000 (Lossless Only)"),
    Entry("1.2.840.10008.1.2.4.91", "JPEG 2000"),
    Entry("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 (Lossless Only)"),
    Entry("1.2.840.10008.1.2.4.202", "High-Throughput JPEG 2000 with RPCL Options (Lossless Only)"),
    Entry("1.2.840.10008.1.2.4.203", "High-Throughput JPEG 2000"),
    Entry("1.2.840.10008.1.2.5", "RLE Lossless"),
)
"""Every one is accepted for every storage class; of those proposed in one context the first in this order is taken."""

_UNCOMPRESSED = TRANSFER_SYNTAXES[:3]


@lru_cache(maxsize=64)
def supported_contexts(allowed: frozenset[str] | None = None) -> list[PresentationContext]:
    """Return the presentation contexts that the SCP accepts (PS3.8 section 7.1.1.13). They are not to be changed.

    Parameters
    ----------
    allowed
        SOP classes that this peer may use; None for every one.
    """
    syntaxes = [syntax.uid for syntax in TRANSFER_SYNTAXES]
    uncompressed = [syntax.uid for syntax in _UNCOMPRESSED]
    commitment = build_context(STORAGE_COMMITMENT.uid, uncompressed)
    services = {entry.uid: build_context(entry.uid, uncompressed) for entry in SERVICE_CLASSES}
    # A modality asks in the role of the user; an archive that answers this node comes in that of the provider, and
    # so does a provider of procedure steps that tells an event.
    for both_ways in (commitment, services[UPS_EVENT.uid]):
        both_ways.scu_role = both_ways.scp_role = True
    contexts = [
        build_context(VERIFICATION.uid, uncompressed),
        commitment,
        *services.values(),
        *(build_context(storage.uid, syntaxes) for storage in STORAGE_CLASSES),
    ]
    return [context for context in contexts if allowed is None or str(context.abstract_syntax) in allowed]


def is_storage(sop_class_uid: str) -> bool:
    """Return whether objects of this class are taken."""
    return any(sop_class_uid == storage.uid for storage in STORAGE_CLASSES)
