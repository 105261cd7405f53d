"""Requests of UPS, MPPS and Instance Availability Notification as bare bytes, right and wrong (PS3.7 section 10)."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from pydicom import Dataset
from pynetdicom.dsutils import encode

from tests.hostile import wire

PUSH, WATCH, PULL, EVENT, QUERY = (f"1.2.840.10008.5.1.4.34.6.{n}" for n in (1, 2, 3, 4, 5))
MPPS, IAN = "1.2.840.10008.3.1.2.3.3", "1.2.840.10008.5.1.4.33"
GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"
CONTEXT_OF = {PUSH: 11, WATCH: 13, PULL: 15, EVENT: 17, QUERY: 19, MPPS: 21, IAN: 23}
CALLING = "MANAGER"
"""Title of who asks; `conftest.offer` knows it."""
PENDING = 0xFF00

C_FIND, C_CANCEL = wire.C_FIND_RQ, wire.C_CANCEL_RQ
N_EVENT_REPORT, N_GET, N_SET, N_ACTION, N_CREATE = 0x0100, 0x0110, 0x0120, 0x0130, 0x0140
REQUESTS = {
    PUSH: (N_CREATE, N_GET, N_ACTION),
    WATCH: (N_GET, N_ACTION, C_FIND, C_CANCEL),
    PULL: (N_GET, N_SET, N_ACTION, C_FIND, C_CANCEL),
    EVENT: (N_EVENT_REPORT,),
    QUERY: (N_GET, C_FIND, C_CANCEL),
    MPPS: (N_CREATE, N_SET),
    IAN: (N_CREATE,),
}
"""What each class takes (PS3.4 tables CC.2-1, F.7.1-1, R.2-1)."""

ELEMENTS = {
    C_FIND: (0x2, 0x100, 0x110, 0x700, 0x800),
    C_CANCEL: (0x100, 0x120, 0x800),
    N_EVENT_REPORT: (0x2, 0x100, 0x110, 0x800, 0x1000, 0x1002),
    N_GET: (0x3, 0x100, 0x110, 0x800, 0x1001),
    N_SET: (0x3, 0x100, 0x110, 0x800, 0x1001),
    N_ACTION: (0x3, 0x100, 0x110, 0x800, 0x1001, 0x1008),
    N_CREATE: (0x2, 0x100, 0x110, 0x800, 0x1000),
}
"""Of each command, without its group length."""


def request() -> bytes:
    """Return an A-ASSOCIATE-RQ that proposes what the hostile tests use, and every service."""
    proposed = (*wire.CONTEXTS, *((number, uid) for uid, number in CONTEXT_OF.items()))
    contexts = b"".join(wire.context(number, uid) for number, uid in proposed)
    return wire.request(calling=CALLING, contexts=contexts)


def command(
    field: int,
    sop_class: str,
    instance: str = "1.2.3",
    changed: Mapping[int, bytes] = {},
    *,
    names: str = "",
    data_set: int = 0,
    leave_out: int = 0,
    more: bytes = b"",
) -> bytes:
    """Return a command on the context of a SOP class as one PDU; elements may be changed, left out or added.

    Parameters
    ----------
    names
        SOP class that the command names, if another than its context's; steps are instances of UPS Push.
    data_set
        Command Data Set Type; 0x0101 says that none follows.
    """
    named = (names or (PUSH if sop_class in (WATCH, PULL, EVENT) and field != C_FIND else sop_class)).encode()
    elements = {0x2: named, 0x3: named, 0x1000: instance.encode(), 0x1001: instance.encode()}
    elements |= {number: wire.us(1) for number in (0x110, 0x120, 0x1002, 0x1008)}
    elements |= {0x100: wire.us(field), 0x700: wire.us(0), 0x800: wire.us(data_set), **changed}
    content = b"".join(wire.element(0, n, elements[n]) for n in ELEMENTS[field] if n != leave_out) + more
    group_length = wire.element(0, 0, struct.pack("<L", len(content)))
    return wire.p_data(wire.fragment(CONTEXT_OF[sop_class], 3, group_length + content))


def data(sop_class: str, content: bytes, size: int = 16_000) -> bytes:
    """Return a data set in fragments of that size, a PDU each."""
    number, pieces = CONTEXT_OF[sop_class], range(0, max(len(content), 1), size)
    return b"".join(
        wire.p_data(wire.fragment(number, 2 if at + size >= len(content) else 0, content[at : at + size]))
        for at in pieces
    )


def encoded(ds: Dataset) -> bytes:
    """Return a data set in Implicit VR Little Endian."""
    content = encode(ds, True, True)
    assert content is not None
    return content


def of(**values: Any) -> Dataset:
    """Return a data set of these attributes."""
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def step(study: str = "1.2.3.1", **changed: Any) -> Dataset:
    """Return what a new procedure step must have (PS3.4 table CC.2.5-3), and a patient."""
    code = of(CodeValue="110004", CodingSchemeDesignator="DCM", CodeMeaning="Computer Aided Detection")
    values = {
        "PatientName": "Phantom^Hostile",
        "PatientID": "0",
        "ScheduledProcedureStepPriority": "HIGH",
        "ProcedureStepLabel": "CAD",
        "WorklistLabel": "CAD",
        "ScheduledWorkitemCodeSequence": [code],
        "ScheduledProcedureStepStartDateTime": "20260102030405",
        "InputReadinessState": "READY",
        "ProcedureStepState": "SCHEDULED",
        "InputInformationSequence": [of(StudyInstanceUID=study)],
    }
    return of(**{**values, **changed})


def _images(keyword: str, instances: Sequence[str]) -> list[Dataset]:
    items = [of(ReferencedSOPClassUID=wire.CR, ReferencedSOPInstanceUID=one) for one in instances]
    return [of(SeriesInstanceUID="1.2.3.2", **{keyword: items})]


def performed(study: str = "1.2.3.1", state: str = "IN PROGRESS", images: Sequence[str] = ()) -> Dataset:
    """Return a performed procedure step as a modality tells it."""
    return of(
        PatientName="Phantom^Hostile",
        PerformedProcedureStepStatus=state,
        ScheduledStepAttributesSequence=[of(StudyInstanceUID=study)],
        PerformedSeriesSequence=_images("ReferencedImageSequence", images),
    )


def available(study: str = "1.2.3.1", images: Sequence[str] = ("1.2.3.3",)) -> Dataset:
    """Return an Instance Availability Notification."""
    return of(StudyInstanceUID=study, ReferencedSeriesSequence=_images("ReferencedSOPSequence", images))


def subscription() -> Dataset:
    """Return the Action Information of a subscription (PS3.4 table CC.2.3-1)."""
    return of(ReceivingAE=CALLING, DeletionLock="FALSE")


def create(uid: str, study: str = "1.2.3.1") -> bytes:
    """Return the N-CREATE of a procedure step."""
    return command(N_CREATE, PUSH, uid) + data(PUSH, encoded(step(study)))


def act(action: int, uid: str, said: Dataset, sop_class: str = WATCH) -> bytes:
    """Return an N-ACTION on a procedure step."""
    return command(N_ACTION, sop_class, uid, {0x1008: wire.us(action)}) + data(sop_class, encoded(said))


def find(keys: Dataset) -> bytes:
    """Return a C-FIND for procedure steps."""
    return command(C_FIND, QUERY) + data(QUERY, encoded(keys))


def final_status(peer: wire.Wire) -> int | None:
    """Return the status that ends a request's answers; None if the association ended instead."""
    while answer := peer.read():
        if answer[0] != 4:
            return None
        at = answer.find(b"\0\0\0\x09\x02\0\0\0")
        status = int.from_bytes(answer[at + 8 : at + 10], "little")
        if at >= 0 and status != PENDING:
            return status
    return None
