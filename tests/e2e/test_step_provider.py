"""A live node as provider of procedure steps: stopped and killed, it tells its watchers all of it once it is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from tests.live import LiveNode, build_bank, until
from tests.phantoms import chest_dataset, part10
from tests.workflow import GLOBAL, STEP, Listener, Manager, asked

pytestmark = pytest.mark.slow
STATE_REPORT, PROGRESS, STATUS, ASSIGNED = 1, 3, 4, 5


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.server.shutdown()


@pytest.fixture
def node(tmp_path: Path, listener: Listener) -> Iterator[LiveNode]:
    build_bank(tmp_path / "banks", tmp_path)
    sink = StorageSink(tmp_path / "pacs", "PACS")
    host, port = sink.start()
    watcher = f'ae_title = "MANAGER", host = "127.0.0.1", port = {listener.port}'
    peers = f'[{{ {watcher} }}, {{ ae_title = "CR1" }}]'
    made = LiveNode(
        tmp_path, tmp_path / "banks", Destination("pacs", "PACS", host, port), receive={"procedure_steps": True}
    )
    text = made.config.read_text(encoding="utf-8")
    made.config.write_text(text.replace("[receive]", f"[receive]\npeers = {peers}"), encoding="utf-8")
    assert made.command("bank", "activate", "test").returncode == 0
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()
    sink.stop()


def states(listener: Listener) -> list[str]:
    return [state for uid, state in listener.heard if uid == STEP]


def test_a_watcher_hears_the_whole_life_of_a_step_though_the_node_is_stopped_and_killed(
    node: LiveNode, listener: Listener, tmp_path: Path
) -> None:
    study = f"2.25.{uuid.uuid4().int}"
    node.start()
    manager = Manager(("127.0.0.1", node.port))
    assert manager.act(3, GLOBAL, ReceivingAE="MANAGER", DeletionLock="TRUE") == 0
    assert manager.create(asked(InputInformationSequence=None, StudyInstanceUID=study)) == 0
    until(lambda: states(listener) == ["SCHEDULED"], "the creation is told")
    manager.association.release()

    assert node.stop() == 0
    assert [ds.SCPStatus for ds in listener.of(STATUS)] == ["GOING DOWN"]
    node.start()
    until(lambda: len(listener.of(STATUS)) == 2, "the start is told")
    assert listener.of(STATUS)[1].SCPStatus == "RESTARTED"

    image = tmp_path / "image.dcm"
    uid = f"2.25.{uuid.uuid4().int}"
    image.write_bytes(
        part10(chest_dataset(StudyInstanceUID=study, SeriesInstanceUID=study, SOPInstanceUID=uid))
    )
    assert node.send(image) == [0]
    node.kill()
    node.start()
    until(lambda: states(listener)[-1:] == ["COMPLETED"], "the end is told")
    assert sorted(set(states(listener))) == ["COMPLETED", "IN PROGRESS", "SCHEDULED"]
    assert states(listener).index("IN PROGRESS") < states(listener).index("COMPLETED")
    assert [ds.ScheduledStationNameCodeSequence[0].CodeValue for ds in listener.of(ASSIGNED)] == ["DICOMNODE"]
    progress: list[Dataset] = [ds.ProcedureStepProgressInformationSequence[0] for ds in listener.of(PROGRESS)]
    assert str(progress[-1].ProcedureStepProgress) == "100"

    again = Manager(("127.0.0.1", node.port))
    done = again.get()
    again.association.release()
    assert done.UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence
    assert node.stop() == 0
    assert listener.of(STATUS)[-1].SCPStatus == "GOING DOWN"
    assert "Traceback" not in node.log.read_text(encoding="utf-8")
