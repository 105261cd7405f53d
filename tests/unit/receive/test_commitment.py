"""Storage commitment as peers meet it on the wire, good ones and others."""

from __future__ import annotations

import struct
import threading
from io import BytesIO

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_role, evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode

from dicom_node.config import Receive
from dicom_node.deliver import commitment as reports
from dicom_node.domain.commitment import PUSH_MODEL_INSTANCE, CommitmentResult, Failure, Reference
from dicom_node.domain.errors import DatabaseError, OutOfResourcesError
from dicom_node.domain.sop_classes import STORAGE_COMMITMENT
from dicom_node.receive.commitment import MOST_REFERENCES, CommitmentService
from dicom_node.receive.held import LARGEST_HELD, HeldDataSet
from dicom_node.receive.scp import Scp
from tests.hostile import wire
from tests.peers import CR, write_image
from tests.unit.receive.conftest import MOMENT

PUSH = STORAGE_COMMITMENT.uid
HELD, UNKNOWN = Reference(CR, "1.2.3.4"), Reference(CR, "1.2.3.5")
TRANSACTION = "2.25.7"


class Promises:
    """Stands where the pipeline stands: holds one object, waits for one answer."""

    def __init__(self):
        self.requests, self.statuses, self.answers = [], [], []
        self.fault = None
        self.heard = threading.Condition()

    def take(self, request):
        if self.fault:
            raise self.fault
        self.requests.append(request)
        failed = tuple(Failure(one, 0x0112) for one in request.references if one != HELD)
        committed = tuple(one for one in request.references if one == HELD)
        return CommitmentResult(request.transaction_uid, committed, failed)

    def told(self, request, status):
        with self.heard:
            self.statuses.append((request.transaction_uid, status))
            self.heard.notify_all()

    def answered(self, result, calling_ae_title):
        if self.fault:
            raise self.fault
        self.answers.append((result, calling_ae_title))
        return result.transaction_uid == TRANSACTION

    def wait(self, count=1):
        with self.heard:
            told = self.heard.wait_for(lambda: len(self.statuses) >= count, 15)
        assert told, f"of {count} reports it was told what became of {self.statuses}"
        return self.statuses


class Peer:
    """An association of a modality or an archive, and what comes on it."""

    def __init__(self, address, role=None, calling="CR1", answer=0x0000):
        self.reports = []
        self.arrived = threading.Event()

        def on_report(event):
            self.reports.append(reports.read_report(event.event_type, event.event_information))
            self.arrived.set()
            return answer, None

        entity = ApplicationEntity(calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
        entity.add_requested_context(PUSH, ExplicitVRLittleEndian)
        entity.add_requested_context(CR, ExplicitVRLittleEndian)
        self.association = entity.associate(
            *address,
            ae_title="DICOMNODE",
            ext_neg=[] if role is None else [build_role(PUSH, **role)],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, on_report)],
        )
        assert self.association.is_established

    def ask(self, information, instance=PUSH_MODEL_INSTANCE, action_type=1):
        """Send an N-ACTION with a data set or raw bytes, and return the status of its answer."""
        request = N_ACTION()
        request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = PUSH, instance
        request.ActionTypeID, request.ActionInformation = action_type, _encoded(information)
        return self._send(request)

    def tell(self, event_type, information, instance=PUSH_MODEL_INSTANCE):
        """Send an N-EVENT-REPORT, and return the status of its answer."""
        request = N_EVENT_REPORT()
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PUSH, instance
        request.EventTypeID, request.EventInformation = event_type, _encoded(information)
        return self._send(request)

    def _send(self, request):
        request.MessageID = 1
        association = self.association
        (context,) = [one for one in association.accepted_contexts if one.abstract_syntax == PUSH]
        association._reactor_checkpoint.clear()
        association.dimse.send_msg(request, context.context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return answer.Status if answer else None


def _encoded(information):
    if information is None:
        return None
    return BytesIO(information if isinstance(information, bytes) else encode(information, False, True))


def asking(*references, transaction_uid=TRANSACTION):
    return reports._action(references, transaction_uid)


@pytest.fixture
def promises():
    return Promises()


@pytest.fixture
def serve(keeper, promises):
    started = []

    def start(**settings):
        service = CommitmentService(promises, reports.read_report, reports.report, lambda: MOMENT)
        scp = Scp(
            Receive.model_validate({"port": 0, "network_timeout": 10.0, **settings}),
            incoming=keeper.incoming,
            ingest=keeper.ingest,
            admit=keeper.admit,
            opened=keeper.note_opened,
            ended=keeper.note_ended,
            clock=lambda: MOMENT,
            commitment=service,
        )
        scp.start()
        started.append(scp)
        return scp

    yield start
    for scp in started:
        scp.stop(drain_seconds=1.0)


@pytest.fixture
def scp(serve):
    return serve()


@pytest.fixture
def call(scp):
    made = []

    def associate(**how):
        made.append(Peer(scp.address, **how))
        return made[-1]

    yield associate
    for peer in made:
        if peer.association.is_established:
            peer.association.release()


def test_a_request_is_recorded_answered_and_reported_on_the_association_that_stays_open(call, promises):
    peer = call()
    assert peer.ask(asking(HELD, UNKNOWN)) == 0x0000
    (request,) = promises.requests
    assert (request.transaction_uid, request.references) == (TRANSACTION, (HELD, UNKNOWN))
    assert (request.calling_ae_title, request.peer_address, request.at) == ("CR1", "127.0.0.1", MOMENT)
    assert peer.arrived.wait(10)
    assert peer.reports == [CommitmentResult(TRANSACTION, (HELD,), (Failure(UNKNOWN, 0x0112),))]
    assert promises.wait() == [(TRANSACTION, 0x0000)]


def test_reports_of_several_requests_come_one_after_the_other(call, promises):
    peer = call()
    for number in range(5):
        assert peer.ask(asking(HELD, transaction_uid=f"2.25.{number}")) == 0x0000
    assert promises.wait(5) == [(f"2.25.{number}", 0) for number in range(5)]
    assert [report.transaction_uid for report in peer.reports] == [f"2.25.{number}" for number in range(5)]


def test_images_are_stored_while_a_report_is_awaited(call, promises, keeper, tmp_path):
    peer = call()
    write_image(tmp_path / "a.dcm")
    assert peer.ask(asking(HELD)) == 0x0000
    assert peer.association.send_c_store(tmp_path / "a.dcm").Status == 0x0000
    assert promises.wait() == [(TRANSACTION, 0x0000)]
    assert len(keeper.received) == 1


def test_who_ends_the_association_is_told_on_another(call, promises):
    peer = call()
    assert peer.ask(asking(HELD)) == 0x0000
    peer.association.release()
    assert promises.wait() == [(TRANSACTION, None)]
    assert peer.reports == []


def test_who_does_not_take_the_report_is_told_again(call, promises):
    peer = call(answer=0x0110)
    assert peer.ask(asking(HELD)) == 0x0000
    assert promises.wait() == [(TRANSACTION, 0x0110)]


@pytest.mark.parametrize(
    "fault", [OutOfResourcesError("too many"), DatabaseError("away")], ids=lambda f: f.args[0]
)
def test_what_cannot_be_recorded_is_refused_for_now_and_never_reported(fault, call, promises):
    promises.fault = fault
    peer = call()
    assert peer.ask(asking(HELD)) == 0x0213
    assert not peer.arrived.wait(0.8)
    assert promises.statuses == []


def _nested(levels):
    start = struct.pack("<HH2sHL", 0x0008, 0x1199, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    return start * levels


def _no_transaction():
    information = asking(HELD)
    del information.TransactionUID
    return information


def _no_sequence():
    information = asking(HELD)
    information.add_new("ReferencedSOPSequence", "UI", "1.2.3")
    return information


def _many():
    return asking(*[Reference(CR, f"1.2.{number}") for number in range(MOST_REFERENCES + 1)])


BAD_REQUESTS = {
    "another instance": ({"instance": "1.2.3"}, asking(HELD), 0x0112),
    "another action": ({"action_type": 2}, asking(HELD), 0x0123),
    "no data set": ({}, None, 0x0115),
    "no reference": ({}, asking(), 0x0115),
    "no transaction": ({}, _no_transaction(), 0x0115),
    "a transaction that is no UID": ({}, asking(HELD, transaction_uid="1.2.x"), 0x0115),
    "an instance that is no UID": ({}, asking(Reference(CR, "Doe^Jane")), 0x0115),
    "a class that is missing": ({}, asking(Reference("", "1.2.3")), 0x0115),
    "more references than may be": ({}, _many(), 0x0213),
    "noise": ({}, bytes(range(7, 256)) * 40, 0x0115),
    "a reference cut off": ({}, _encoded(asking(HELD)).getvalue()[:-9], 0x0115),
    "sequences in sequences": ({}, _nested(20_000), 0x0110),
    "UIDs where the sequence belongs": ({}, _no_sequence(), 0x0110),
    "a data set that is too large": ({}, bytes(LARGEST_HELD + 2), 0x0213),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_a_request_that_is_none_is_refused_and_the_association_goes_on(name, call, promises, caplog):
    how, information, status = BAD_REQUESTS[name]
    peer = call()
    assert peer.ask(information, **how) == status
    assert promises.requests == []
    assert "Doe" not in _said(caplog)
    assert peer.ask(asking(HELD)) == 0x0000


def _said(caplog):
    """Return what this program logged; the log of a running node takes nothing of the libraries'."""
    return " ".join(str(vars(line)) for line in caplog.records if line.name.startswith("dicom_node"))


def _answer(*committed, failed=(), transaction_uid=TRANSACTION):
    return reports.report(CommitmentResult(transaction_uid, committed, failed))


@pytest.mark.parametrize("role", [{"scp_role": True}, {"scp_role": True, "scu_role": True}, None], ids=str)
def test_an_archive_answers_on_an_association_of_its_own(role, call, promises):
    assert call(role=role, calling="PACS").tell(*_answer(HELD)) == 0x0000
    assert promises.answers == [(CommitmentResult(TRANSACTION, (HELD,)), "PACS")]


def test_a_role_that_was_not_taken_is_not_played(call, promises):
    assert call(role={"scu_role": True}).tell(*_answer(HELD)) == 0x0211
    assert call(role={"scp_role": True}).ask(asking(HELD)) == 0x0211
    assert (promises.answers, promises.requests) == ([], [])


def _untyped():
    information = _answer(HELD)[1]
    del information.TransactionUID
    return information


BAD_ANSWERS = {
    "another instance": ({"instance": "1.2.3"}, _answer(HELD), 0x0112),
    "another event": ({}, (3, _answer(HELD)[1]), 0x0113),
    "an unknown transaction": ({}, _answer(HELD, transaction_uid="2.25.8"), 0x0115),
    "no transaction": ({}, (1, _untyped()), 0x0115),
    "a transaction that is no UID": ({}, _answer(HELD, transaction_uid="Doe^Jane"), 0x0115),
    "no data set": ({}, (1, None), 0x0115),
    "noise": ({}, (1, bytes(range(7, 256)) * 40), 0x0115),
    "sequences in sequences": ({}, (2, _nested(20_000)), 0x0110),
    "a data set that is too large": ({}, (1, bytes(LARGEST_HELD + 2)), 0x0213),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_an_answer_that_is_none_is_refused_and_the_association_goes_on(name, call, promises, caplog):
    how, what, status = BAD_ANSWERS[name]
    peer = call(role={"scp_role": True})
    assert peer.tell(*what, **how) == status
    assert "Doe" not in _said(caplog)
    promises.answers.clear()
    assert peer.tell(*_answer(HELD)) == 0x0000


def test_an_answer_that_cannot_be_recorded_is_to_be_sent_again(call, promises):
    promises.fault = DatabaseError("away")
    assert call(role={"scp_role": True}).tell(*_answer(HELD)) == 0x0213


def test_where_it_is_switched_off_its_context_is_rejected(serve):
    peer = Peer(serve(commitment=False).address)
    assert {str(one.abstract_syntax) for one in peer.association.accepted_contexts} == {CR}
    peer.association.release()


def test_only_peers_that_are_known_may_ask(serve):
    scp = serve(peers=[{"ae_title": "CR1", "sop_classes": ["CR"]}])
    assert Peer(scp.address).ask(asking(HELD)) == 0x0000
    with pytest.raises(AssertionError):
        Peer(scp.address, calling="STRANGER")


ENDING = {
    "a request on a context of images": wire.commitment(wire.N_ACTION_RQ, context_id=wire.CR_CONTEXT),
    "a request of another class": wire.commitment(wire.N_ACTION_RQ, {0x3: CR.encode()}),
    "a request without an action type": wire.commitment(wire.N_ACTION_RQ, leave_out=0x1008),
    "a request whose action type has four bytes": wire.commitment(wire.N_ACTION_RQ, {0x1008: bytes(4)}),
    "a request without an instance": wire.commitment(wire.N_ACTION_RQ, leave_out=0x1001),
    "an event on a context of images": wire.commitment(wire.N_EVENT_REPORT_RQ, context_id=wire.CR_CONTEXT),
    "an event without a type": wire.commitment(wire.N_EVENT_REPORT_RQ, leave_out=0x1002),
    "an answer to an event that was not sent": wire.commitment(
        wire.N_EVENT_REPORT_RSP, data_set=wire.NO_DATA_SET
    ),
    "an endless data set": wire.commitment(wire.N_ACTION_RQ)
    + wire.p_data(wire.fragment(wire.COMMITMENT_CONTEXT, 0, bytes(64_000))) * (2 * LARGEST_HELD // 64_000 + 2),
}


@pytest.mark.parametrize("name", ENDING)
def test_what_no_library_sends_ends_the_association(name, scp, promises):
    with wire.Wire(scp.address, timeout=10) as peer:
        assert peer.associate(wire.request_with_commitment())[0] == 2
        peer.send(ENDING[name])
        assert peer.end()[:1] in (b"", b"\x07")
    wire.echo_once(scp.address)
    assert (promises.requests, promises.answers) == ([], [])


def test_a_flood_of_events_takes_no_thread_for_each(scp, promises):
    answer = wire.commitment(wire.N_EVENT_REPORT_RQ) + wire.commitment_data_set("1.2.3.4", TRANSACTION)
    at_rest = threading.active_count()
    with wire.Wire(scp.address, timeout=20) as peer:
        assert peer.associate(wire.request_with_commitment())[0] == 2
        most = 0
        for _ in range(50):
            peer.send(answer)
            most = max(most, threading.active_count())
        assert [peer.status() for _ in range(50)] == [0] * 50
    assert most <= at_rest + 2
    assert len(promises.answers) == 50


def test_an_answer_to_another_report_than_was_sent_ends_the_association(scp, promises):
    with wire.Wire(scp.address, timeout=10) as peer:
        assert peer.associate(wire.request_with_commitment())[0] == 2
        peer.send(wire.commitment(wire.N_ACTION_RQ) + wire.commitment_data_set("1.2.3.4", TRANSACTION))
        assert peer.status() == 0
        assert peer.read()[:1] == b"\x04", "the report's command"
        peer.send(wire.commitment(wire.N_EVENT_REPORT_RSP, {0x120: wire.us(99)}, data_set=wire.NO_DATA_SET))
        assert peer.end()[:1] == b"\x07"
    assert promises.wait() == [(TRANSACTION, None)]


def test_what_is_held_in_memory_has_an_end():
    held = HeldDataSet(largest=10)
    assert [held.write(b"12345"), held.write(b"67890")] == [5, 5]
    assert not held.too_large
    held.write(b"x")
    held.write(b"")
    assert (held.getvalue(), held.too_large, held.endless) == (b"1234567890", True, False)
    held.write(bytes(10))
    assert (held.getbuffer().nbytes, held.endless) == (10, True)
