"""Streams of one who uses UPS, MPPS and Instance Availability Notification: good ones, whose data sets may be changed.

Whether a stream is changed as a whole, PDUs left out, cut and mixed, is for `association_path`.
"""

from __future__ import annotations

from random import Random

from pydicom import Dataset

from tests.fuzz.mutations import Shape, apply, mutate
from tests.hostile import services, wire
from tests.hostile.services import EVENT, IAN, MPPS, PULL, PUSH, QUERY, WATCH, of

_KINDS = (1, 1, 2, 3, 3, 4, 5, 6, 255, 65_535)
_STATES = ("SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED", "DISCONTINUED", "", "NONE")


def asking(chance: Random, number: int) -> list[bytes]:
    """Return the PDUs of one who makes a step, and then asks for a few things about it and others."""
    uid, study = f"2.25.{number}", f"1.2.3.{number % 40}"
    pdus = [services.request(), *_pdus(chance, services.N_CREATE, PUSH, uid, services.step(study))]
    for _ in range(chance.randrange(2, 7)):
        known = chance.choice(
            (uid, uid, f"2.25.{max(number - 1, 0)}", services.GLOBAL, services.FILTERED, "1.2.9")
        )
        pdus += chance.choice(_REQUESTS)(chance, known, study)
    return [*pdus, wire.RELEASE_RQ]


def _get(chance: Random, uid: str, _study: str) -> list[bytes]:
    tags = b"".join(chance.randbytes(4) for _ in range(chance.choice((0, 1, 3))))
    more = wire.element(0, 0x1005, tags) if tags else b""
    sop_class = chance.choice((PUSH, PULL, WATCH, QUERY))
    return [services.command(services.N_GET, sop_class, uid, data_set=wire.NO_DATA_SET, more=more)]


def _set(chance: Random, uid: str, study: str) -> list[bytes]:
    return _pdus(chance, services.N_SET, PULL, uid, services.step(study, TransactionUID="2.25.1"))


def _act(chance: Random, uid: str, _study: str) -> list[bytes]:
    said = chance.choice(
        (
            services.subscription(),
            services.subscription(),
            of(ProcedureStepState=chance.choice(_STATES), TransactionUID="2.25.2"),
            of(ReasonForCancellation="changed its mind"),
        )
    )
    changed = {0x1008: wire.us(chance.choice(_KINDS))}
    return _pdus(chance, services.N_ACTION, chance.choice((PUSH, WATCH, PULL)), uid, said, changed)


def _find(chance: Random, uid: str, study: str) -> list[bytes]:
    keys = of(
        PatientName=chance.choice(("", "*", "Ph?ntom*")),
        ProcedureStepState=chance.choice(_STATES),
        ScheduledProcedureStepStartDateTime=chance.choice(("", "2026-", "-", "2026-2027")),
        StudyInstanceUID=chance.choice(("", study)),
        SOPInstanceUID=chance.choice(("", uid)),
        ScheduledWorkitemCodeSequence=[of(CodeValue="110004")],
    )
    sop_class = chance.choice((QUERY, PULL, WATCH))
    pdus = _pdus(chance, services.C_FIND, sop_class, uid, keys)
    if chance.random() < 0.5:
        pdus.append(services.command(services.C_CANCEL, sop_class, data_set=wire.NO_DATA_SET))
    return pdus


def _event(chance: Random, uid: str, _study: str) -> list[bytes]:
    changed = {0x1002: wire.us(chance.choice(_KINDS))}
    said = of(ProcedureStepState=chance.choice(_STATES), InputReadinessState="READY")
    return _pdus(chance, services.N_EVENT_REPORT, EVENT, uid, said, changed)


def _performed(chance: Random, uid: str, study: str) -> list[bytes]:
    if chance.random() < 0.5:
        return _pdus(chance, services.N_CREATE, MPPS, uid, services.performed(study))
    ended = services.performed(study, chance.choice(_STATES), [f"{study}.1", f"{study}.2"])
    return _pdus(chance, services.N_SET, MPPS, uid, ended)


def _available(chance: Random, uid: str, study: str) -> list[bytes]:
    return _pdus(chance, services.N_CREATE, IAN, uid, services.available(study, [f"{study}.1"]))


_REQUESTS = (_get, _set, _act, _act, _find, _event, _performed, _available)


def _pdus(
    chance: Random, field: int, sop_class: str, uid: str, ds: Dataset, changed: dict[int, bytes] | None = None
) -> list[bytes]:
    content = services.encoded(ds)
    if chance.random() < 0.4:
        shape = Shape(content, implicit=True, little=True)
        content = apply(content, mutate(shape, content, chance, [content]))[:600_000]
    head = services.command(field, sop_class, uid, changed or {})
    cut = chance.randrange(1, len(content)) if len(content) > 1 and chance.random() < 0.5 else len(content) or 1
    return [head, services.data(sop_class, content, cut)]
