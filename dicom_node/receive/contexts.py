"""What peers may propose: SOP classes and transfer syntaxes, as data. Knows nothing of sockets or files.

Reports (SR) are not among them: an object of the kind the node makes itself cannot enter it (loop guard).
"""

from __future__ import annotations

from dataclasses import dataclass

from pynetdicom.presentation import PresentationContext, build_context


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered UID and its name in PS3.6."""

    uid: str
    name: str


VERIFICATION = Entry("1.2.840.10008.1.1", "Verification SOP Class")

STORAGE_CLASSES = (
    Entry("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation"),
    Entry("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing"),
    Entry("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage"),
)
"""Film digitisers use the two multi-frame grayscale classes (one frame); colour and bilevel are no X-rays."""

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
"""Every one is accepted for every storage class; of those proposed in one context the peer's first is taken."""

_VERIFICATION_SYNTAXES = TRANSFER_SYNTAXES[:3]


def supported_contexts() -> list[PresentationContext]:
    """Return the presentation contexts that the SCP accepts (PS3.8 section 7.1.1.13)."""
    syntaxes = [syntax.uid for syntax in TRANSFER_SYNTAXES]
    return [
        build_context(VERIFICATION.uid, [syntax.uid for syntax in _VERIFICATION_SYNTAXES]),
        *(build_context(storage.uid, syntaxes) for storage in STORAGE_CLASSES),
    ]


def is_storage(sop_class_uid: str) -> bool:
    """Return whether objects of this class are taken."""
    return any(sop_class_uid == storage.uid for storage in STORAGE_CLASSES)
