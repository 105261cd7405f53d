"""Procedure steps in adversity: lost connections, cancelled queries, failed analyses; input of a real archive."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom.dsutils import encode
from pynetdicom.status import UNIFIED_PROCEDURE_STEP_SERVICE_CLASS_STATUS as STATUSES

from dicom_node.config import Config, Receive
from dicom_node.db.engine import reading
from dicom_node.domain import procedure_steps as ups
from dicom_node.domain.audit import StepRequested
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.node import open_node, receiving, stepping
from dicom_node.pipeline.gather import close_quiet_revisions
from dicom_node.receive.procedure_steps import ProcedureStepService
from dicom_node.receive.scp import Scp
from dicom_node.store import instances, step_needs, studies
from tests.archives import fill, pacs, section, write_study
from tests.hostile.wire import Wire, context, element, fragment, p_data, request, us
from tests.peers import free_port
from tests.workflow import PEERS, PULL, PUSH, QUERY, STEP, WATCH, Manager, Provider, asked

CONTEXTS = {PUSH: 1, WATCH: 3, PULL: 5, QUERY: 7}
N_GET, N_SET, N_ACTION, N_CREATE, C_FIND = 0x0110, 0x0120, 0x0130, 0x0140, 0x0020


def attributes(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


REQUESTS = {
    "N-CREATE": (N_CREATE, PUSH, 0, asked()),
    "N-GET": (N_GET, PULL, 0, None),
    "N-SET": (N_SET, PULL, 0, attributes(ProcedureStepLabel="x")),
    "change state": (
        N_ACTION,
        PULL,
        1,
        attributes(ProcedureStepState="IN PROGRESS", TransactionUID="1.2.3"),
    ),
    "request cancel": (N_ACTION, WATCH, 2, attributes(ReasonForCancellation="x")),
    "subscribe": (N_ACTION, WATCH, 3, attributes(ReceivingAE="MANAGER", DeletionLock="TRUE")),
    "unsubscribe": (N_ACTION, WATCH, 4, attributes(ReceivingAE="MANAGER")),
    "C-FIND": (C_FIND, QUERY, 0, attributes(PatientName="*", SOPInstanceUID="")),
}


def message(name: str) -> tuple[bytes, bytes]:
    """Return a request's command and its data set, in one presentation data value each."""
    field, over, action, ds = REQUESTS[name]
    of_push = PUSH.encode() if field != C_FIND else QUERY.encode()
    command = element(0, 0x2 if field in (N_CREATE, C_FIND) else 0x3, of_push)
    command += element(0, 0x100, us(field)) + element(0, 0x110, us(1))
    command += element(0, 0x700, us(0)) if field == C_FIND else b""
    command += element(0, 0x800, us(0x0101 if ds is None else 0))
    if field != C_FIND:
        command += element(0, 0x1000 if field == N_CREATE else 0x1001, STEP.encode())
    command += element(0, 0x1008, us(action)) if action else b""
    content = b"" if ds is None else encode(ds, is_implicit_vr=True, is_little_endian=True) or b""
    whole = element(0, 0, struct.pack("<L", len(command))) + command
    return fragment(CONTEXTS[over], 3, whole), fragment(CONTEXTS[over], 2, content) if content else b""


def associated(provider: Provider) -> Wire:
    wire = Wire(provider.scp.address)
    contexts = b"".join(context(identifier, abstract) for abstract, identifier in CONTEXTS.items())
    assert wire.associate(request(calling="MANAGER", contexts=contexts))[:1] == b"\x02"
    return wire


ANSWERS = {
    "N-CREATE": 0x0000,
    "N-GET": 0x0000,
    "N-SET": 0xC310,
    "change state": 0x0124,
    "request cancel": 0x0000,
    "subscribe": 0x0000,
    "unsubscribe": 0x0000,
    "C-FIND": 0xFF00,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_the_requests_of_this_test_are_answered_where_nothing_is_lost(provider, manager, name):
    if name != "N-CREATE":
        manager.create(asked())
    command, content = message(name)
    with provider.listening(), associated(provider) as wire:
        wire.send(p_data(command) + (p_data(content) if content else b""))
        assert wire.status() == ANSWERS[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_connection_that_is_lost_within_a_request_changes_nothing_and_the_next_is_served(
    provider, manager, name
):
    if name != "N-CREATE":
        manager.create(asked())
    before = provider.kept()
    command, content = message(name)
    sent = p_data(command) + (p_data(content) if content else b"")
    last = len(p_data(content)) if content else len(sent) // 2
    with provider.listening():
        for cut in (8, len(sent) - last, len(sent) - last // 2, len(sent) - 1):
            wire = associated(provider)
            wire.send(sent[:cut])
            wire.reset()
        again = Manager(provider.scp.address)
        assert again.find(SOPInstanceUID="") == ([] if name == "N-CREATE" else again.find(SOPInstanceUID=STEP))
        assert provider.kept() == before
        if name == "N-CREATE":
            assert again.create(asked()) == 0
        assert again.get().ProcedureStepState == "SCHEDULED"
        again.association.release()


@pytest.mark.parametrize("name", REQUESTS)
def test_a_connection_that_is_lost_before_the_answer_leaves_what_was_asked_done_or_undone(
    provider, manager, name
):
    if name != "N-CREATE":
        manager.create(asked())
    command, content = message(name)
    with provider.listening():
        wire = associated(provider)
        wire.send(p_data(command) + (p_data(content) if content else b""))
        wire.reset()
        again = Manager(provider.scp.address)
        if name == "N-CREATE":
            assert again.create(asked()) in (0, 0x0111)
        state = again.get().ProcedureStepState
        assert state in (("SCHEDULED", "CANCELED") if name == "request cancel" else ("SCHEDULED",))
        assert len(provider.kept()) <= (2 if name == "request cancel" else 1)
        again.association.release()


def deep() -> bytes:
    """Return a data set whose sequences are 2 000 deep."""
    inner = b""
    for _ in range(2_000):
        inner = struct.pack("<HHLHHL", 0x40, 0x4018, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF) + inner
    return inner


def noise(right: bytes) -> Iterator[bytes]:
    """Yield what may come in the place of a data set: nothing, pieces, flipped bytes, lies, depth, size."""
    chance = random.Random(815)
    yield from (b"", b"\0", right[: len(right) // 2], right[:-1], right[1:], right[::-1])
    yield from (chance.randbytes(size) for size in (7, 64, 4_000))
    for _ in range(6):
        flipped = bytearray(right)
        for _ in range(4):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        yield bytes(flipped)
    yield element(0x10, 0x10, b"x", length=0xFFFFFFFE)
    yield element(0x40, 0x4018, b"", length=0xFFFFFFFF) + b"\xff" * 40
    yield element(0x10, 0x10, b"\x1b$B\xff\xfe\0\x80" * 9) + element(0x40, 0x4005, b"\xff" * 90)
    yield deep()
    yield element(0x10, 0x4000, b"x" * 600_000)


@pytest.mark.parametrize("name", [name for name, (_, _, _, ds) in REQUESTS.items() if ds is not None])
def test_noise_in_the_place_of_a_data_set_is_answered_or_aborted_and_the_next_request_is_served(
    provider, manager, caplog, name
):
    manager.create(asked(), "2.25.2")
    command, content = message(name)
    identifier, right = content[4], content[6:]
    answers: list[int | None] = []
    with provider.listening():
        for wrong in noise(right):
            with associated(provider) as wire:
                pieces = [wrong[at : at + 16_000] for at in range(0, len(wrong), 16_000)] or [b""]
                wire.send(p_data(command))
                for number, piece in enumerate(pieces, 1):
                    wire.send(p_data(fragment(identifier, 2 if number == len(pieces) else 0, piece)))
                answers.append(wire.status())
            assert manager.get("2.25.2").ProcedureStepState == "SCHEDULED"
    assert len(answers) == 20
    known = {*ups.MEANINGS, 0xFF00, 0xC000, 0xA700, None}
    assert set(answers) <= known
    assert set(answers) - {0, 0xFF00}, "some noise is refused"
    assert not [record for record in caplog.records if record.exc_info], "nothing broke inside"
    kept = provider.kept()
    with reading(provider.site.engine) as conn:
        needed = step_needs.digests(conn)
    assert {file.removesuffix(".dcm") for file in kept} >= needed


def test_a_name_in_the_wrong_place_is_told_to_nobody(provider, manager, caplog):
    caplog.set_level("DEBUG", logger="dicom_node")
    name = "MARKED^NAME"
    code = attributes(CodeValue=name, CodingSchemeDesignator=name, CodeMeaning=name)
    source = attributes(StudyInstanceUID=name)
    answers = [
        manager.create(asked(), name),
        manager.create(asked(ProcedureStepState=name)),
        manager.create(asked(ScheduledProcedureStepPriority=name)),
        manager.create(asked(ScheduledProcedureStepStartDateTime=name)),
        manager.create(asked(InputReadinessState=name)),
        manager.create(asked(ScheduledWorkitemCodeSequence=[code])),
        manager.create(asked(InputInformationSequence=[source])),
        manager.act(2, name),
        manager.act(1, over=PULL, ProcedureStepState=name, TransactionUID=name),
        manager.act(3, ReceivingAE=name + "^THAT^IS^LONG", DeletionLock=name),
        manager.act(3, ReceivingAE=name, DeletionLock=name),
    ]
    assert 0 not in answers
    assert len(provider.heard) == len(answers)
    assert "MARKED" not in str(provider.heard)
    assert "MARKED" not in "".join(
        str(vars(record)) for record in caplog.records if "dicom_node" in record.name
    )


class Endless:
    """A keeper whose answers to a query never end."""

    def find(self, _keys: Dataset) -> Iterator[Dataset]:
        while True:
            yield attributes(SOPInstanceUID=STEP)


def test_a_query_that_is_cancelled_ends_with_the_status_of_that(provider):
    told: list[StepRequested] = []
    site = provider.site
    scp = Scp(
        Receive.model_validate({"port": 0, "peers": PEERS}),
        incoming=site.files.incoming,
        ingest=site.ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=site.clock,
        services=[ProcedureStepService(Endless(), provider.watching, told.append, site.clock)],
    )
    with scp:
        manager = Manager(scp.address)
        statuses = []
        keys = attributes(SOPInstanceUID="")
        for number, (status, _) in enumerate(manager.association.send_c_find(keys, QUERY, msg_id=7)):
            if number == 0:
                manager.association.send_c_cancel(7, None, QUERY)
            statuses.append(status.Status)
        manager.association.release()
    assert set(statuses[:-1]) == {0xFF00}
    assert statuses[-1] == 0xFE00
    assert [one.what for one in told] == ["C-FIND"]
    assert "0xFE00" in told[0].description


def test_while_the_node_performs_a_step_nobody_else_takes_ends_or_changes_it(provider, manager):
    manager.create(asked())
    provider.study()
    provider.complete()
    judge, answers = provider.site.judge, []

    def meanwhile(ds):
        answers.extend(
            manager.act(1, over=PULL, ProcedureStepState=state, TransactionUID="1.2.3")
            for state in ("IN PROGRESS", "COMPLETED", "CANCELED", "SCHEDULED", "DONE")
        )
        answers.append(manager.act(1, over=PULL, ProcedureStepState="IN PROGRESS"))
        answers.append(manager.association.send_n_set(asked(), PUSH, STEP, meta_uid=PULL)[0].Status)
        return judge(ds)

    provider.site.judge = meanwhile
    provider.site.work()
    assert answers == [0xC302, 0xC301, 0xC301, 0xC303, 0x0115, 0xC301, 0xC301]
    assert manager.get().ProcedureStepState == "COMPLETED"


def test_an_analysis_that_failed_is_a_canceled_step_and_tried_again_another_step(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert manager.act(3, "1.2.840.10008.5.1.4.34.5", ReceivingAE="MANAGER", DeletionLock="FALSE") == 0
        provider.study()
        provider.complete()
        judge = provider.site.judge

        def fails(_ds):
            raise RuntimeError("no memory")

        provider.site.judge = fails
        for _ in range(4):
            provider.site.work()
            provider.site.clock.forward(3600)
        (item,) = provider.site.items(Kind.ANALYSE)
        assert item.state is State.FAILED
        (progress,) = manager.get().ProcedureStepProgressInformationSequence
        assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110501"
        assert manager.get().ProcedureStepState == "CANCELED"
        provider.tell()
        state = listener.events[-1][2]
        assert (
            state.ProcedureStepState,
            state.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue,
        ) == (
            "CANCELED",
            "110501",
        )
        provider.site.judge = judge
        provider.retry(item.id)
        (again,) = manager.find(ProcedureStepState="SCHEDULED")
        provider.site.work()
        assert manager.get(again.SOPInstanceUID).ProcedureStepState == "COMPLETED"
        assert manager.get().ProcedureStepState == "CANCELED", "what has ended stays so"


def test_the_input_of_a_step_is_fetched_from_a_real_archive_and_the_step_is_ready_then(tmp_path: Path):
    port = free_port()
    study, paths = write_study(tmp_path / "study", images=2)
    with pacs(tmp_path / "pacs", port) as peer:
        fill(peer, paths)
        config = Config.model_validate(
            {
                "receive": {
                    "port": port,
                    "procedure_steps": True,
                    "peers": [{"ae_title": "MANAGER"}, {"ae_title": "ORTHANC"}],
                },
                "gather": {"quiet_seconds": 0.1},
                "store": {"root": tmp_path / "store", "reserve_megabytes": 1},
                "db": {"url": f"sqlite:///{tmp_path / 'node.db'}"},
                "archives": [section("c-move", "pacs", "ORTHANC", peer.port)],
            }
        )
        with open_node(config) as node, receiving(node) as address:
            duties = {name: duty for name, _, duty in stepping.duties(node)}
            manager = Manager(address)
            source = attributes(StudyInstanceUID=study)
            source.DICOMRetrievalSequence = [attributes(RetrieveAETitle="ORTHANC")]
            new = asked(InputInformationSequence=[source], InputReadinessState="INCOMPLETE")
            assert manager.create(new) == 0
            assert manager.get().InputReadinessState == "INCOMPLETE"
            assert duties["fetch for procedure steps"]() == 1
            for _ in range(100):
                if close_quiet_revisions(node.engine, config.gather, stepping.now):
                    break
                time.sleep(0.1)  # the study must have been quiet
            step = manager.get()
            manager.association.release()
            with reading(node.engine) as conn:
                revision = studies.latest_revision(conn, study)
                held = instances.of_revision(conn, node.files, study, revision or 0)
    assert len(held) == 2
    assert (step.ProcedureStepState, step.InputReadinessState) == ("SCHEDULED", "READY")


OF_REQUESTS = {
    "CC.2.1-2": {0x0000, 0xC300, 0xC301, 0xC302, 0xC303, 0xC307, 0xC310},
    "CC.2.2-2": {0x0000, 0xB304, 0xC307, 0xC311, 0xC313},
    "CC.2.3-3": {0x0000, 0xB301, 0xC307, 0xC308, 0xC314},
    "CC.2.5-4": {0x0000, 0xC309},
    "CC.2.6-1": {0xC300, 0xC301, 0xC307, 0xC310},
    "PS3.7": {0x0106, 0x0110, 0x0111, 0x0115, 0x0117, 0x0120, 0x0121, 0x0123, 0x0124, 0x0211, 0x0213},
}
"""What this node answers, by table of PS3.4 and by the general statuses of PS3.7 annex C."""


def test_every_status_is_one_of_the_standards_and_every_meaning_is_given():
    ours = set().union(*OF_REQUESTS.values())
    assert set(ups.MEANINGS) == ours
    assert ours <= STATUSES.keys()
    warnings = {code for code in ours if STATUSES[code][0] == "Warning"}
    assert warnings == {code for code, meaning in ups.MEANINGS.items() if meaning.startswith("Warning")}


@pytest.mark.parametrize("uid", ["1.2.3", "not a UID"])
def test_a_step_that_is_unknown_is_so_to_every_request(provider, manager, uid):
    expected = 0xC307 if uid == "1.2.3" else 0x0117
    association = manager.association
    with provider.listening():
        assert association.send_n_get([], PUSH, uid, meta_uid=PULL)[0].Status == expected
        assert association.send_n_set(asked(), PUSH, uid, meta_uid=PULL)[0].Status == expected
        assert manager.act(1, uid, over=PULL, ProcedureStepState="COMPLETED", TransactionUID="1.2") == expected
        assert manager.act(2, uid) == expected
        assert manager.act(3, uid, ReceivingAE="MANAGER", DeletionLock="TRUE") == expected
        assert manager.act(4, uid, ReceivingAE="MANAGER") == expected
        if uid != "1.2.3":
            assert manager.create(asked(), uid) == expected
