"""The SOP classes of this node, as data: what it takes, and the names that a configuration may use for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered UID and its name in PS3.6."""

    uid: str
    name: str


VERIFICATION = Entry("1.2.840.10008.1.1", "Verification SOP Class")
STORAGE_COMMITMENT = Entry("1.2.840.10008.1.20.1", "Storage Commitment Push Model SOP Class")

UPS_PUSH = Entry("1.2.840.10008.5.1.4.34.6.1", "Unified Procedure Step - Push SOP Class")
UPS_WATCH = Entry("1.2.840.10008.5.1.4.34.6.2", "Unified Procedure Step - Watch SOP Class")
UPS_PULL = Entry("1.2.840.10008.5.1.4.34.6.3", "Unified Procedure Step - Pull SOP Class")
UPS_EVENT = Entry("1.2.840.10008.5.1.4.34.6.4", "Unified Procedure Step - Event SOP Class")
UPS_QUERY = Entry("1.2.840.10008.5.1.4.34.6.5", "Unified Procedure Step - Query SOP Class")
UPS_CLASSES = (UPS_PUSH, UPS_WATCH, UPS_PULL, UPS_EVENT, UPS_QUERY)
MPPS = Entry("1.2.840.10008.3.1.2.3.3", "Modality Performed Procedure Step SOP Class")
IAN = Entry("1.2.840.10008.5.1.4.33", "Instance Availability Notification SOP Class")
SERVICE_CLASSES = (*UPS_CLASSES, MPPS, IAN)
"""Each is accepted only where the configuration switches it on."""

STORAGE_CLASSES = (
    Entry("1.2.840.10008.5.1.4.1.1.1", "Computed Radiography Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.1.1", "Digital X-Ray Image Storage - For Presentation"),
    Entry("1.2.840.10008.5.1.4.1.1.1.1.1", "Digital X-Ray Image Storage - For Processing"),
    Entry("1.2.840.10008.5.1.4.1.1.7", "Secondary Capture Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.7.2", "Multi-frame Grayscale Byte Secondary Capture Image Storage"),
    Entry("1.2.840.10008.5.1.4.1.1.7.3", "Multi-frame Grayscale Word Secondary Capture Image Storage"),
)
"""Film digitisers use the two multi-frame grayscale classes (one frame); colour and bilevel are no X-rays."""

GROUPS: dict[str, tuple[str, ...]] = {
    "images": tuple(entry.uid for entry in STORAGE_CLASSES),
    "CR": (STORAGE_CLASSES[0].uid,),
    "DX": (STORAGE_CLASSES[1].uid, STORAGE_CLASSES[2].uid),
    "SC": tuple(entry.uid for entry in STORAGE_CLASSES[3:]),
}
"""Short names for several classes at once."""

SERVICE_GROUPS: dict[str, tuple[str, ...]] = {
    "UPS": tuple(entry.uid for entry in UPS_CLASSES),
    "MPPS": (MPPS.uid,),
    "IAN": (IAN.uid,),
}
"""Short names of services that a peer may use, beside those of images."""


def sop_classes_named(name: str) -> tuple[str, ...]:
    """Return the UIDs that a group, a class name or a UID stands for.

    Raises
    ------
    ValueError
        If it is none that this node takes; the message lists what would be.
    """
    groups = GROUPS | SERVICE_GROUPS
    if name in groups:
        return groups[name]
    takes = (*STORAGE_CLASSES, *SERVICE_CLASSES)
    found = tuple(entry.uid for entry in takes if name in (entry.uid, entry.name))
    if not found:
        written = ", ".join(f'"{group}"' for group in groups)
        raise ValueError(
            f"{name!r} is no SOP class that is stored or served here; write {written}, or a name or UID of PS3.6"
        )
    return found
