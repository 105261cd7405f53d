"""Several destinations of several kinds: one that is down holds up no other, and each has its own rules."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from dicom_node.config import Config, load
from dicom_node.db import schema
from dicom_node.db.engine import reading, writing
from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.errors import DestinationAwayError
from dicom_node.domain.limits import Limits, Window
from dicom_node.domain.routing import Route
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Kind, Verdict, WorkItem
from dicom_node.node.opening import Node, now, open_node
from dicom_node.node.working import deliverers, dispatcher
from dicom_node.pipeline.dispatch import Dispatch
from dicom_node.pipeline.process import Analyse
from dicom_node.pipeline.selftest import DELIVERED_AE_TITLE
from dicom_node.pipeline.worker import Worker
from dicom_node.queue import items
from dicom_node.report import sr
from dicom_node.store import reports
from tests.fakes import scored
from tests.integration.test_pipeline import Site
from tests.peers import orthanc, require
from tests.peers_hl7 import acknowledgement, listening
from tests.phantoms import chest_dataset
from tests.unit.report.builders import AT, EQUIPMENT, HIGH, header, image, result

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DEADLINE = 30.0


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"after {DEADLINE:.0f} s it does not hold that {what}"
        time.sleep(0.02)


def _config(folder: Path, *destinations: dict[str, object], **deliver: object) -> Config:
    return load(
        flags={
            "store": {"root": str(folder / "store"), "reserve_megabytes": 0},
            "db": {"url": f"sqlite:///{folder / 'node.db'}"},
            "queue": {"poll_seconds": 0.02, "backoff_seconds": 0.05, "backoff_cap_seconds": 0.1},
            "deliver": deliver,
            "destinations": list(destinations),
        }
    )


def _answer(node: Node, number: int) -> str:
    """Make a report on a study and schedule its deliveries, as an analysis does; return the study's UID."""
    study = f"1.2.276.0.1.{number}"
    outcome = replace(result(Verdict.ABOVE, [image(score=HIGH)]), study_instance_uid=study)
    report = sr.build(
        outcome,
        [header({"StudyInstanceUID": study.encode()})],
        EQUIPMENT,
        AT,
    )
    with writing(node.engine) as conn:
        reports.add(
            conn,
            report,
            digest=node.files.put_report(report.content),
            revision=1,
            bank_hash="",
            verdict=outcome.verdict,
            result=asdict(outcome),
            at=now(),
        )
        for name in node.destinations:
            items.schedule(conn, Kind.DELIVER, study, 1, now(), destination=name)
    return study


@contextmanager
def _working(workers: list[Worker]) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=worker.run, args=(stop,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)


class BlackHole:
    """Takes connections and never says a word, until it is closed."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._server.getsockname()[1])
        self.taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self.taken.append(self._server.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(DEADLINE)
        for connection in self.taken:
            connection.close()


def _states(node: Node, destination: str) -> list[State]:
    with reading(node.engine) as conn:
        return [item.state for item in items.listing(conn) if item.destination == destination]


def _only(node: Node, study: str) -> WorkItem:
    with reading(node.engine) as conn:
        (item,) = items.of_study(conn, study)
    return item


@pytest.mark.parametrize("kind", ["dicom", "stow", "hl7"])
def test_one_that_takes_connections_and_never_answers_holds_up_no_other(kind: str, tmp_path: Path) -> None:
    hole = BlackHole()
    where: dict[str, dict[str, object]] = {
        "dicom": {"ae_title": "HOLE", "host": "127.0.0.1", "port": hole.port},
        "stow": {"url": f"http://127.0.0.1:{hole.port}/dicom-web"},
        "hl7": {"host": "127.0.0.1", "port": hole.port},
    }
    with StorageSink(tmp_path / "sink") as sink:
        host, port = sink.address
        config = _config(
            tmp_path,
            {"name": "hole", "kind": kind, "max_associations": 2, **where[kind]},
            {"name": "pacs", "ae_title": sink.ae_title, "host": host, "port": port, "confirm": "none"},
            timeout=2 * DEADLINE,  # whoever waits for the one is too late for the other
        )
        with open_node(config) as node:
            for number in range(12):
                _answer(node, number)
            dispatch = dispatcher(node)
            generic = [
                Worker(
                    node.engine,
                    config.queue,
                    {Kind.DELIVER: dispatch},
                    f"any {number}",
                    now,
                    limits={name: one.limits for name, one in node.destinations.items()},
                )
                for number in range(4)
            ]
            with _working([*generic, *deliverers(node, dispatch)]):
                try:
                    _until(
                        lambda: _states(node, "pacs") == [State.COMPLETED] * 12, "the other has every report"
                    )
                    _until(
                        lambda: len(hole.taken) == 2,
                        "as many as it takes wait for the one that does not answer",
                    )
                    assert State.COMPLETED not in _states(node, "hole")
                    assert _states(node, "hole").count(State.IN_PROGRESS) == 2
                finally:
                    hole.close()
    assert len(sink.files) == 12


@pytest.mark.peer("orthanc")
def test_a_report_reaches_orthanc_by_stow_is_found_there_and_another_system_is_told_by_hl7(
    tmp_path: Path,
) -> None:
    if not PLUGIN.exists():
        require(str(PLUGIN))
    with (
        orthanc(tmp_path / "orthanc", Plugins=[str(PLUGIN)]) as pacs,
        listening(acknowledgement("AA")) as ris,
    ):
        port, heard = ris
        config = _config(
            tmp_path,
            {"name": "vna", "kind": "stow", "url": f"http://127.0.0.1:{pacs.http_port}/dicom-web/"},
            {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": port, "receiving_application": "RIS"},
        )
        with open_node(config) as node:
            study = _answer(node, 1)
            with _working(deliverers(node, dispatcher(node))):
                _until(
                    lambda: _states(node, "vna") == _states(node, "ris") == [State.COMPLETED],
                    "both have got it",
                )
            with reading(node.engine) as conn:
                (stored,) = reports.of_study(conn, study)
                delivered = {one.destination: one for one in reports.deliveries(conn, stored.sop_instance_uid)}
                notes = {item.destination: item.reason for item in items.of_study(conn, study)}
        assert len(pacs.find("Instance", SOPInstanceUID=stored.sop_instance_uid)) == 1
    assert notes["vna"] == "found"
    assert (delivered["vna"].confirmed, delivered["vna"].comment) == ("found", "sent as comprehensive-3d")
    assert delivered["ris"].comment == "acknowledged AA"
    assert study in heard[0]
    assert "|DICOMNODE||RIS||" in heard[0]


def test_a_destination_gives_up_and_waits_by_its_own_rules(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = int(unused.getsockname()[1])
    rules: dict[str, object] = {"attempts": 2, "backoff_seconds": 0.01, "backoff_cap_seconds": 0.01}
    config = _config(tmp_path, {"name": "ris", "kind": "hl7", "host": "127.0.0.1", "port": nobody, **rules})
    with open_node(config) as node:
        study = _answer(node, 1)
        with _working(deliverers(node, dispatcher(node))):
            _until(lambda: _states(node, "ris") == [State.FAILED], "it has given up")
        item = _only(node, study)
    assert item.attempts == 2
    assert item.reason.startswith("gave up after 2 attempts: ris (HL7 at ")


@pytest.fixture
def site(engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, tmp_path / "store")


def _with_routes(site: Site, **routes: Route) -> None:
    site.worker._handlers[Kind.ANALYSE] = Analyse(  # type: ignore[index]
        site.engine,
        site.files,
        site._score,
        EQUIPMENT,
        tuple(site.destinations),
        site.clock,
        routes=routes,
    )


def _named(site: Site, study: str) -> list[list[str]]:
    """Return the destinations that the events of the study's reports name."""
    table = schema.events
    with reading(site.engine) as conn:
        rows = conn.execute(
            select(table.c.detail)
            .where(table.c.kind == "report.stored", table.c.study_instance_uid == study)
            .order_by(table.c.id)
        )
        return [list(row.detail["destinations"]) for row in rows]


def test_a_report_goes_where_its_route_says_and_its_event_says_so(site: Site) -> None:
    _with_routes(site, vna=Route(verdicts=frozenset({"above threshold"})))
    ordinary, unusual = chest_dataset(seed=1), chest_dataset(seed=2)
    site.judge = lambda ds: scored(ds, above=ds.SOPInstanceUID == unusual.SOPInstanceUID)
    for ds in (ordinary, unusual):
        site.receive(ds)
    site.pass_quiet_time()
    site.work()
    assert _named(site, ordinary.StudyInstanceUID) == [["pacs"]]
    assert _named(site, unusual.StudyInstanceUID) == [["pacs", "vna"]]
    assert sorted(name for name, _ in site.peer.kept) == ["pacs", "pacs", "vna"]


def test_who_got_a_report_also_gets_the_one_that_supersedes_it(site: Site) -> None:
    _with_routes(site, vna=Route(verdicts=frozenset({"above threshold"})))
    first, late = chest_dataset(seed=1), chest_dataset(seed=2)
    late.StudyInstanceUID = first.StudyInstanceUID
    site.judge = lambda ds: scored(ds, above=True)
    site.receive(first)
    site.pass_quiet_time()
    site.work()
    site.judge = scored
    site.receive(late)
    site.pass_quiet_time()
    site.work()
    assert _named(site, first.StudyInstanceUID) == [["pacs", "vna"], ["pacs", "vna"]]


def test_a_self_test_that_is_to_be_delivered_goes_everywhere(site: Site) -> None:
    _with_routes(site, vna=Route(verdicts=frozenset({"failed"})), pacs=Route(modalities=frozenset({"MR"})))
    phantom = chest_dataset(seed=1)
    site.receive(phantom, calling=DELIVERED_AE_TITLE)
    site.pass_quiet_time()
    site.work()
    assert _named(site, phantom.StudyInstanceUID) == [["pacs", "vna"]]


def test_outside_its_part_of_the_day_a_report_waits_and_uses_up_no_attempt(site: Site) -> None:
    site.clock.at = datetime(2026, 3, 4, 20, 0, tzinfo=UTC)
    night = Limits(windows=(Window.parse("22:00-06:00"),))
    site.destinations["vna"] = replace(site.destinations["vna"], limits=night)
    site.dispatch = site.worker._handlers[Kind.DELIVER] = Dispatch(  # type: ignore[index]
        site.engine, site.files, site.peer.send, site.destinations, site.clock, zone=UTC
    )
    ds = chest_dataset(seed=1)
    site.receive(ds)
    site.pass_quiet_time()
    site.work()
    with reading(site.engine) as conn:
        (waiting,) = (item for item in items.of_study(conn, ds.StudyInstanceUID) if item.destination == "vna")
    assert (waiting.state, waiting.attempts) == (State.SCHEDULED, 0)
    assert waiting.reason.startswith("waits for the part of the day")
    assert waiting.available_at == datetime(2026, 3, 4, 22, 0, tzinfo=UTC)
    assert [name for name, _ in site.peer.kept] == ["pacs"]
    site.clock.at = waiting.available_at
    site.work()
    assert [name for name, _ in site.peer.kept] == ["pacs", "vna"]


def test_what_waits_for_one_that_let_its_senders_wait_is_not_even_taken(site: Site) -> None:
    def answer(destination: Destination) -> int:
        if destination.name == "pacs":
            site.clock.forward(30)
            raise DestinationAwayError("no answer within 30 s")
        return 0

    site.peer.answer = answer
    worker = Worker(
        site.engine,
        site.queue,
        {Kind.ANALYSE: site.analyse, Kind.DELIVER: site.dispatch},
        "test",
        site.clock,
        lambda: 0.0,
        left_alone=site.dispatch.left_alone,
    )
    studies = [chest_dataset(seed=seed) for seed in range(5)]
    for ds in studies:
        site.receive(ds)
    site.pass_quiet_time()
    while worker.step():
        pass
    with reading(site.engine) as conn:
        waiting = [item for item in items.listing(conn, State.SCHEDULED) if item.destination == "pacs"]
    assert sorted(item.attempts for item in waiting) == [0, 0, 0, 0, 1]
    assert [name for name, _ in site.peer.kept] == ["vna"] * 5


def test_what_was_taken_and_not_tried_has_used_up_no_attempt_and_is_not_told_to_have_begun(site: Site) -> None:
    def answer(destination: Destination) -> int:
        site.clock.forward(30)
        raise DestinationAwayError(f"{destination.name} does not answer within 30 s")

    begun: list[object] = []
    site.peer.answer = answer
    site.dispatch._audit = begun.append
    for seed in (1, 2):
        site.receive(chest_dataset(seed=seed))
    site.pass_quiet_time()
    for _ in range(2):  # the analyses
        site.worker.step()
    first, second = [item for item in site.items(Kind.DELIVER) if item.destination == "pacs"]
    tried, not_tried = (site.dispatch(replace(item, attempts=1)) for item in (first, second))
    assert (tried.counted, not_tried.counted) == (True, False)
    assert "not tried" in not_tried.outcome.reason
    assert len(begun) == 1
