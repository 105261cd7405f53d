"""What the node's page says of archives and worklists, out of what the node did with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from dicom_node.db.engine import writing
from dicom_node.domain.performing import TaskState
from dicom_node.domain.reading import PeerView
from dicom_node.domain.retrieval import Fetched
from dicom_node.pipeline.desk_health import ARCHIVE, MODALITY_WORKLIST, UPS_WORKLIST
from dicom_node.store import expected, retrievals, tasks
from dicom_node.store.files import FileStore
from tests.desks import Desk
from tests.fakes import ManualClock

MINUTE = timedelta(minutes=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def desk(engine: Engine, tmp_path: Path, clock: ManualClock) -> Desk:
    (tmp_path / "store").mkdir()
    kinds = {"vna": ARCHIVE, "old": ARCHIVE, "ris": MODALITY_WORKLIST, "workflow": UPS_WORKLIST}
    peers = tuple(PeerView(name, kind, None, "unused") for name, kind in kinds.items())
    return Desk(engine, FileStore(tmp_path / "store", 0), clock, peers=peers)


def _peers(desk: Desk) -> dict[str, PeerView]:
    return {one.name: one for one in desk.desk.health().peers if one.kind != "destination"}


def test_who_was_never_asked_is_unused(desk: Desk) -> None:
    assert {(one.state, one.last_at, one.error) for one in _peers(desk).values()} == {("unused", None, "")}


def test_an_archive_tells_of_its_last_study_and_its_last_error_whichever_is_newer(
    desk: Desk, clock: ManualClock
) -> None:
    with writing(desk.engine) as conn:
        retrievals.add(conn, "vna", ["1.2.1", "1.2.2", "1.2.3"], 5, clock())
        first = retrievals.claim(conn, "vna", clock(), 60, "a")
        assert first is not None
        retrievals.finish(conn, first, retrievals.FETCHED, clock(), Fetched(1, 0))
        second = retrievals.claim(conn, "vna", clock(), 60, "b")
        assert second is not None
        retrievals.finish(conn, second, retrievals.FAILED, clock() + MINUTE, reason="0xA702: no resources")
    vna = _peers(desk)["vna"]
    assert (vna.last_at, vna.state, vna.detail) == (clock(), "failed", "1 waiting; 1 failed")
    assert (vna.error, vna.error_at) == ("0xA702: no resources", clock() + MINUTE)
    assert _peers(desk)["old"].state == "unused"
    with writing(desk.engine) as conn:
        third = retrievals.claim(conn, "vna", clock(), 60, "c")
        assert third is not None
        retrievals.finish(conn, third, retrievals.FETCHED, clock() + 2 * MINUTE, Fetched(1, 0))
    assert _peers(desk)["vna"] == vna, "counting is not done for every glance"
    later = replace(vna, last_at=clock() + 2 * MINUTE, state="ok", detail="1 failed")
    clock.forward(11)
    assert _peers(desk)["vna"] == later


def test_worklists_tell_when_an_entry_was_heard_of(desk: Desk, clock: ManualClock) -> None:
    with writing(desk.engine) as conn:
        for n, state in enumerate(("open", "open", "missed", "arrived")):
            expected.put(
                conn, source="mwl", key=f"ris:{n}", study_instance_uid=f"1.2.{n}", at=clock() + n * MINUTE,
                priority=5, state=state,
            )  # fmt: skip
        expected.put(
            conn, source="mwl", key="rist:1", study_instance_uid="1.2.9", at=clock() + 9 * MINUTE, priority=5,
            state="open",
        )  # fmt: skip
        tasks.add(
            conn, source="workflow", sop_instance_uid="1.2.7", transaction_uid="1.2.8", priority=5, at=clock()
        )  # fmt: skip
    ris, workflow = _peers(desk)["ris"], _peers(desk)["workflow"]
    assert (ris.last_at, ris.state, ris.detail) == (clock() + 3 * MINUTE, "ok", "2 waiting; 1 failed")
    assert (workflow.last_at, workflow.state, workflow.detail) == (clock(), "ok", "1 waiting")
    clock.forward(60)
    with writing(desk.engine) as conn:
        task = tasks.claim(conn, "workflow", clock(), 60, "a")
        assert task is not None
        tasks.move(conn, task, TaskState.LOST, clock(), reason="another performs it")
    lost = _peers(desk)["workflow"]
    assert (lost.last_at, lost.state, lost.error) == (None, "failed", "another performs it")
