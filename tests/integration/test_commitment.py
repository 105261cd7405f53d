"""Storage commitment over the network, both ways: a modality that asks this node, an archive that answers it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from sqlalchemy import Engine, func, select, update

from dicom_node.config import Receive
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.deliver import commitment, scu
from dicom_node.domain.commitment import CommitmentRequest, CommitmentResult, Failure, Reference
from dicom_node.domain.errors import DestinationRefusedError, OutOfResourcesError
from dicom_node.domain.sop_classes import STORAGE_COMMITMENT
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination
from dicom_node.pipeline.commit import KEPT_OPEN, TRIED_FOR, Commitments, report_commitments
from dicom_node.pipeline.ingest import Ingest
from dicom_node.receive.commitment import CommitmentService
from dicom_node.receive.scp import Scp
from dicom_node.report.profile import CLASSES
from dicom_node.store import commitment_requests
from dicom_node.store.files import FileStore
from tests.fakes import ManualClock
from tests.integration.test_confirmation import Site
from tests.live import until
from tests.peers import CR, Orthanc, free_port, orthanc, write_image

PUSH = STORAGE_COMMITMENT.uid
DX = "1.2.840.10008.5.1.4.1.1.1.1"
TITLE: dict[str, Any] = {"calling_ae_title": "DICOMNODE", "timeout": 10.0}


class House:
    """A node as far as storage commitment goes: receiver, store, database, and the duty that reports."""

    def __init__(self, engine: Engine, folder: Path, **limits: int) -> None:
        self.engine, self.clock, self.folder = engine, ManualClock(), folder
        self.files = FileStore(folder / "node", 0)
        self.peers: dict[str, Destination] = {}
        self.keeper = Commitments(engine, self.files, self.clock, **limits)
        self.scp = Scp(
            Receive(port=0),
            incoming=self.files.incoming,
            ingest=Ingest(engine, self.files, "2.25.99", self.clock),
            admit=lambda: None,
            opened=lambda _facts: None,
            ended=lambda _id, _how: None,
            clock=self.clock,
            commitment=CommitmentService(self.keeper, commitment.read_report, commitment.report, self.clock),
        )

    @property
    def address(self) -> Destination:
        return Destination("node", "DICOMNODE", *self.scp.address)

    def hold(self, sop_instance_uid: str) -> Reference:
        """Let the node be sent an image."""
        path = self.folder / f"{sop_instance_uid}.dcm"
        write_image(path, sop_instance_uid=sop_instance_uid)
        assert scu.send_files(self.address, [path], calling_ae_title="CR1") == [0]
        return Reference(CR, sop_instance_uid)

    def report(self) -> int:
        """Do once what the node does every few seconds."""

        def tell(peer: Destination, result: CommitmentResult) -> None:
            commitment.tell(peer, result, **TITLE)

        return report_commitments(
            self.engine, self.files, lambda title, _address: self.peers.get(title), tell, self.clock
        )

    def open(self) -> int:
        """Return how many requests wait for their report."""
        with reading(self.engine) as conn:
            return int(conn.execute(select(func.count()).select_from(schema.commitment_requests)).scalar_one())

    def events(self) -> list[str]:
        with reading(self.engine) as conn:
            return [k for k in conn.scalars(select(schema.events.c.kind)) if k.startswith("commitment.")]


@pytest.fixture
def house(engine: Engine, tmp_path: Path) -> Iterator[House]:
    house = House(engine, tmp_path)
    with house.scp:
        yield house


class Modality:
    """Asks, and listens for reports on a port of its own."""

    def __init__(self, port: int = 0) -> None:
        self.reports: list[tuple[str, CommitmentResult]] = []
        self.status = 0x0000
        entity = ApplicationEntity("CR1")
        entity.add_supported_context(PUSH, scu_role=True, scp_role=True)
        self.server = entity.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)]
        )
        assert self.server is not None
        self.address = Destination("peer CR1", "CR1", "127.0.0.1", self.server.server_address[1])

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        assert event.event_type is not None
        roles = event.assoc.requestor.role_selection.get(PUSH)  # type: ignore[call-overload]
        how = "as provider" if roles is not None and roles.scp_role else "no role"
        self.reports.append((how, commitment.read_report(event.event_type, event.event_information)))
        return self.status, None

    def stop(self) -> None:
        assert self.server is not None
        self.server.shutdown()


@pytest.fixture
def modality() -> Iterator[Modality]:
    modality = Modality()
    yield modality
    modality.stop()


def ask(house: House, *references: Reference, transaction_uid: str = "2.25.7", wait: float = 0.0) -> Any:
    """Ask as a modality does, keeping the association open for a while."""
    return commitment.request(
        house.address, references, transaction_uid, calling_ae_title="CR1", timeout=10.0, wait=wait
    )


def ask_and_leave(house: House, *references: Reference, **how: Any) -> None:
    """Ask and end the association; return when the node knows that its report is owed."""
    assert ask(house, *references, **how) is None

    def is_due() -> bool:
        with reading(house.engine) as conn:
            return commitment_requests.any_due(conn, house.clock())

    until(is_due, "the node knows that the association has ended", 10)


def test_only_what_is_stored_recorded_and_kept_under_its_own_class_is_committed(house: House) -> None:
    held, lost, pruned, missing = (house.hold(f"1.2.3.{number}") for number in range(4))
    with writing(house.engine) as conn:
        rows = schema.instances
        for uid, kept in ((lost.sop_instance_uid, "lost"), (pruned.sop_instance_uid, "going")):
            conn.execute(update(rows).where(rows.c.sop_instance_uid == uid).values(kept=kept))
        digest = conn.execute(
            select(rows.c.digest).where(rows.c.sop_instance_uid == missing.sop_instance_uid)
        ).scalar_one()
    house.files.instance_path(digest).unlink()
    unknown, other = Reference(CR, "1.2.3.77"), Reference(DX, held.sop_instance_uid)
    result = ask(house, held, lost, pruned, missing, unknown, other, wait=10.0)
    assert result.committed == (held,)
    no_such = [Failure(reference, 0x0112) for reference in (lost, pruned, missing, unknown)]
    assert list(result.failed) == [*no_such, Failure(other, 0x0119)]
    until(lambda: house.open() == 0, "the answer to the report is recorded", 10)
    assert house.events() == ["commitment.requested", "commitment.reported"]


def test_what_came_twice_with_different_bytes_is_committed_once(house: House) -> None:
    reference = house.hold("1.2.3.1")
    path = house.folder / "other.dcm"
    write_image(path, sop_instance_uid="1.2.3.1", PatientComments="other bytes")
    assert scu.send_files(house.address, [path], calling_ae_title="CR1") == [0]
    assert ask(house, reference, wait=10.0) == CommitmentResult("2.25.7", (reference,))


def test_a_modality_that_ends_the_association_is_called(house: House, modality: Modality) -> None:
    reference = house.hold("1.2.3.1")
    house.peers["CR1"] = modality.address
    ask_and_leave(house, reference)
    assert house.report() == 1
    assert modality.reports == [("as provider", CommitmentResult("2.25.7", (reference,)))]
    assert (house.report(), house.open()) == (0, 0)
    assert house.events() == ["commitment.requested", "commitment.reported"]


def test_a_modality_that_is_away_is_called_again_less_and_less_often_for_a_day(house: House) -> None:
    port = free_port()
    house.peers["CR1"] = Destination("peer CR1", "CR1", "127.0.0.1", port)
    reference = house.hold("1.2.3.1")
    ask_and_leave(house, reference)
    assert (house.report(), house.report(), house.open()) == (0, 0, 1)
    house.clock.forward(15)
    modality = Modality(port)
    try:
        modality.status = 0x0110
        assert (house.report(), len(modality.reports)) == (0, 1)
        modality.status = 0x0000
        house.clock.forward(10)
        assert house.report() == 0, "the wait has grown"
        house.clock.forward(10)
        assert (house.report(), len(modality.reports), house.open()) == (1, 2, 0)
    finally:
        modality.stop()
    ask_and_leave(house, reference)
    house.clock.forward(TRIED_FOR.total_seconds())
    assert (house.report(), house.open()) == (0, 0)
    assert house.events()[-1] == "commitment.undelivered"


def test_a_modality_whose_port_is_unknown_gets_no_report_and_the_log_names_the_key(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    ask_and_leave(house, house.hold("1.2.3.1"))
    assert (house.report(), house.open()) == (0, 0)
    assert house.events() == ["commitment.requested", "commitment.undelivered"]
    (line,) = [vars(one) for one in caplog.records if one.message == "storage commitment report given up"]
    assert "set port in its receive.peers" in line["reason"]


def test_a_node_that_dies_between_its_answer_and_the_report_reports_when_it_is_back(
    house: House, modality: Modality
) -> None:
    reference = house.hold("1.2.3.1")
    house.peers["CR1"] = modality.address
    house.keeper.take(CommitmentRequest("2.25.7", (reference,), "CR1", "127.0.0.1", house.clock()))
    assert house.report() == 0, "the association may be open still"
    house.clock.forward(KEPT_OPEN.total_seconds())
    assert house.report() == 1
    assert modality.reports[0][1] == CommitmentResult("2.25.7", (reference,))


def test_a_receiver_that_starts_takes_up_what_a_former_one_owes(house: House, modality: Modality) -> None:
    house.peers["CR1"] = modality.address
    house.keeper.take(CommitmentRequest("2.25.7", (house.hold("1.2.3.1"),), "CR1", "127.0.0.1", house.clock()))
    assert house.report() == 0
    house.keeper.resume()
    assert house.report() == 1


def test_what_is_lost_before_the_report_is_not_promised(house: House, modality: Modality) -> None:
    reference = house.hold("1.2.3.1")
    house.peers["CR1"] = modality.address
    ask_and_leave(house, reference)
    with writing(house.engine) as conn:
        conn.execute(update(schema.instances).values(kept="lost"))
    house.report()
    assert modality.reports[0][1].failed == (Failure(reference, 0x0112),)


def test_of_two_processes_one_tells_a_report(house: House, modality: Modality) -> None:
    house.peers["CR1"] = modality.address
    ask_and_leave(house, house.hold("1.2.3.1"))
    with writing(house.engine) as conn:
        assert (
            commitment_requests.take_due(conn, house.clock(), house.clock() + timedelta(minutes=5)) is not None
        )
    assert (house.report(), modality.reports) == (0, [])


def test_requests_that_nobody_fetches_have_an_end(engine: Engine, tmp_path: Path) -> None:
    house = House(engine, tmp_path, most=2)
    reference = Reference(CR, "1.2.3.1")

    def take(number: int) -> None:
        house.keeper.take(CommitmentRequest(f"2.25.{number}", (reference,), "CR1", "127.0.0.1", house.clock()))

    take(1)
    take(2)
    take(2)
    with pytest.raises(OutOfResourcesError, match="wait for their reports"):
        take(3)
    assert house.open() == 2
    with house.scp, pytest.raises(DestinationRefusedError, match="0x0213"):
        ask(house, reference, transaction_uid="2.25.3")


class Archive:
    """Commits itself to what it is asked for, on an association of its own, when it is told to."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.asked: list[str] = []
        entity = ApplicationEntity("PACS")
        entity.add_supported_context(PUSH)
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_ACTION, self._on_action)]
        )
        assert self._server is not None
        self.address = Destination("pacs", "PACS", "127.0.0.1", self._server.server_address[1])

    def _on_action(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(str(event.action_information.TransactionUID))
        return 0x0000, None

    def answer(self, *failed: Failure, transaction_uid: str = "") -> None:
        committed = () if failed else (Reference(CLASSES[0], "1.2.9"),)
        result = CommitmentResult(transaction_uid or self.asked[-1], committed, failed)
        commitment.tell(self._house.address, result, calling_ae_title="PACS", timeout=10.0)

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()


@contextmanager
def delivering(house: House, pacs: Destination) -> Iterator[Site]:
    """Make a node that has sent a report to an archive which offers storage commitment."""
    site = Site(house.engine, house.folder)
    house.clock.at = site.clock.at
    site.archive.commitment = lambda uid: commitment.request(
        pacs, [Reference(CLASSES[0], "1.2.9")], uid, wait=0.1, **TITLE
    )
    yield site


@pytest.fixture
def archive(house: House) -> Iterator[Archive]:
    archive = Archive(house)
    yield archive
    archive.stop()


def test_an_answer_on_an_association_of_the_archive_completes_the_delivery_at_once(
    house: House, archive: Archive
) -> None:
    with delivering(house, archive.address) as site:
        assert site.work().state is State.SCHEDULED
        archive.answer()
        assert (site.work().state, site.confirmed()) == (State.COMPLETED, "committed")
        archive.answer()  # once more, because our answer was lost: it is told that all is well
        assert (site.confirmed(), site.archive.sent) == ("committed", 1)


def test_a_late_failure_sends_the_report_again_and_asks_anew(house: House, archive: Archive) -> None:
    with delivering(house, archive.address) as site:
        site.work()
        archive.answer(Failure(Reference(CLASSES[0], "1.2.9"), 0x0112))
        assert (site.work().state, site.confirmed()) == (State.SCHEDULED, "withdrawn")
        site.later()
        assert (site.archive.sent, len(set(archive.asked))) == (2, 2)
        archive.answer()
        assert (site.work().state, site.confirmed()) == (State.COMPLETED, "committed")


def test_an_answer_to_nothing_that_was_asked_is_refused_and_changes_nothing(
    house: House, archive: Archive
) -> None:
    with delivering(house, archive.address) as site:
        site.work()
        with pytest.raises(DestinationRefusedError, match="0x0115"):
            archive.answer(transaction_uid="2.25.4711")
        assert (site.work().state, site.confirmed()) == (State.SCHEDULED, "")


def test_an_answer_that_comes_while_the_question_is_put_is_found_at_once(
    house: House, archive: Archive
) -> None:
    with delivering(house, archive.address) as site:
        put = site.archive.commitment

        def answered_meanwhile(uid: str) -> CommitmentResult | None:
            result = put(uid)
            archive.answer()
            return result

        site.archive.commitment = answered_meanwhile
        assert (site.work().state, site.confirmed()) == (State.COMPLETED, "committed")


def _orthanc(house: House, folder: Path) -> Any:
    host, port = house.scp.address
    known = {"AET": "DICOMNODE", "Host": host, "Port": port, "AllowStorageCommitment": True}
    return orthanc(folder / "pacs", DicomModalities={"node": known})


@pytest.mark.peer("Orthanc")
def test_orthanc_answers_for_a_report_on_an_association_of_its_own(house: House, tmp_path: Path) -> None:
    with _orthanc(house, tmp_path) as pacs:
        address = Destination("pacs", pacs.ae_title, pacs.host, pacs.port)
        with delivering(house, address) as site:
            site.work()
            until(lambda: "commitment.answered" in site.events(), "Orthanc says that it does not hold it", 20)
            item = site.work()
            assert (item.state, site.confirmed()) == (State.SCHEDULED, "withdrawn")
            assert "0x0112" in item.reason
            path = tmp_path / "report.dcm"
            write_image(path, sop_class=CLASSES[0], sop_instance_uid="1.2.9")
            scu.send(address, path.read_bytes(), calling_ae_title="DICOMNODE")
            site.later()
            until(lambda: site.events().count("commitment.answered") == 2, "Orthanc commits itself to it", 20)
            assert (site.work().state, site.confirmed()) == (State.COMPLETED, "committed")


def _post(pacs: Orthanc, path: str, body: object) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}{path}", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - always http
        return json.loads(answer.read())


@pytest.mark.peer("Orthanc")
def test_orthanc_asks_and_is_told_what_the_node_holds(house: House, tmp_path: Path) -> None:
    held, unknown = house.hold("1.2.3.1"), Reference(CR, "1.2.3.2")
    done = threading.Event()

    def report() -> None:
        while not done.wait(0.2):
            house.report()

    with _orthanc(house, tmp_path) as pacs:
        house.peers["ORTHANC"] = Destination("peer ORTHANC", "ORTHANC", pacs.host, pacs.port)
        thread = threading.Thread(target=report)
        thread.start()
        try:
            for references, status in (([held], "Success"), ([held, unknown], "Failure")):
                body = {"DicomInstances": [[one.sop_class_uid, one.sop_instance_uid] for one in references]}
                asked = _post(pacs, "/modalities/node/storage-commitment", body)
                where = str(asked["Path"])
                until(lambda at=where: pacs.json(at)["Status"] != "Pending", "Orthanc has the report", 20)  # type: ignore[misc, index]
                told: Any = pacs.json(where)
                assert told["Status"] == status
                assert [one["SOPInstanceUID"] for one in told["Success"]] == ["1.2.3.1"]
                failures = [(one["SOPInstanceUID"], one["FailureReason"]) for one in told["Failures"]]
                assert failures == ([("1.2.3.2", 0x0112)] if status == "Failure" else [])
        finally:
            done.set()
            thread.join()
    assert (house.open(), house.events().count("commitment.reported")) == (0, 2)


CONFIG = """
[receive]
port = {port}
peers = [{{ ae_title = "CR1", port = {modality} }}]
[store]
root = "{folder}/store"
reserve_megabytes = 0
[db]
url = "sqlite:///{folder}/node.db"
"""


def _start(folder: Path) -> subprocess.Popen[bytes]:
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "dicom_node", "receive", "--config", str(folder / "config.toml")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen([*command, "--ready-file", str(ready)], stderr=log)
    until(lambda: ready.exists() or process.poll() is not None, "the node listens")
    assert process.poll() is None, (folder / "log").read_text()[-2000:]
    return process


def test_a_node_killed_after_its_answer_reports_when_it_is_started_again(tmp_path: Path) -> None:
    port, listens = free_port(), free_port()
    (tmp_path / "config.toml").write_text(CONFIG.format(port=port, modality=listens, folder=tmp_path))
    node = Destination("node", "DICOMNODE", "127.0.0.1", port)
    write_image(tmp_path / "a.dcm", sop_instance_uid="1.2.3.1")
    process = _start(tmp_path)
    try:
        assert scu.send_files(node, [tmp_path / "a.dcm"], calling_ae_title="CR1") == [0]
        held, unknown = Reference(CR, "1.2.3.1"), Reference(CR, "1.2.3.2")
        how: dict[str, Any] = {"calling_ae_title": "CR1", "timeout": 10.0}
        assert commitment.request(node, [held, unknown], "2.25.7", **how, wait=0.0) is None
    finally:
        process.kill()
        process.wait()
    modality = Modality(listens)  # so that no report was taken before
    process = _start(tmp_path)
    try:
        until(lambda: bool(modality.reports), "the report has come", 30)
    finally:
        modality.stop()
        process.terminate()
        assert process.wait(60) == 0
    assert modality.reports == [
        ("as provider", CommitmentResult("2.25.7", (held,), (Failure(unknown, 0x0112),)))
    ]
