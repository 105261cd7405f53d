"""Deterministic UIDs. Owns how they are derived; knows neither clock nor randomness. Pure.

A UID made here is ``2.25.`` followed by the decimal value of a UUID (PS3.5 section B.2). The UUID is RFC 4122
version 5, name-based with SHA-1: 122 bits of the digest of a name inside the OID name space, version bits 0101
and variant bits 10. The name is the JSON array of all parts, so ("a", "bc") and ("ab", "c") cannot meet.
"""

from __future__ import annotations

import json
import uuid

from dicom_node.domain.types import Verdict


def derived(device_uid: str, *parts: str | int) -> str:
    """Return the UID that this device gives to what `parts` name.

    Parameters
    ----------
    device_uid
        UID of the node; two nodes never derive the same UID.
    parts
        What the UID is of. The first is the kind of thing, such as "series".

    Returns
    -------
    str
        ``2.25.<decimal UUID>``, at most 44 characters.
    """
    name = json.dumps([device_uid, *parts], ensure_ascii=True, separators=(",", ":"))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


def report_uid(
    device_uid: str, study_instance_uid: str, revision: int, bank_hash: str, verdict: Verdict
) -> str:
    """Return the SOP Instance UID of a report: a function of study, revision, bank and outcome.

    `bank_hash` is "" where no bank was used, and joins the hashes with "+" where several were.
    """
    return derived(device_uid, "report", study_instance_uid, revision, bank_hash, verdict.value)


def series_uid(device_uid: str, study_instance_uid: str, *equipment: str) -> str:
    """Return the Series Instance UID of the reports on a study.

    Equipment and description are attributes of a series (PS3.3 section C.7.5.1), so they are part of its
    identity: a node that was upgraded or renamed opens another series.
    """
    return derived(device_uid, "series", study_instance_uid, *equipment)


def tracking_uid(device_uid: str, sop_instance_uid: str, number: int = 1) -> str:
    """Return the Tracking Unique Identifier of what is measured in an image, the same in every revision.

    `number` counts the measurements of one image, which differ in their algorithm; the first one decides.
    """
    return derived(device_uid, "tracking", sop_instance_uid, *([number] if number > 1 else []))
