"""A node that `serve` runs, told by a workflow manager: its events alone bring work, and take it back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.deliver.sink import StorageSink
from dicom_node.domain.types import Destination
from tests.live import LiveNode, running, until
from tests.scripted_archive import image
from tests.scripted_archive import running as archive_running
from tests.ups_provider import UpsProvider, item, serving
from tests.worklist_siege import OfStudies

pytestmark = pytest.mark.slow
HERE, NOWHERE = "2.25.4711", "2.25.4712"
"""Studies: the archive has images of the one."""


@pytest.fixture
def provider() -> Iterator[UpsProvider]:
    with serving(UpsProvider(users={"node": "open sesame"})) as provider:
        yield provider


@pytest.fixture
def node(tmp_path: Path, provider: UpsProvider) -> Iterator[LiveNode]:
    """Run a node that subscribes, and asks by itself once an hour at most."""
    sink = StorageSink(tmp_path / "pacs", "PACS")
    host, port = sink.start()
    passcode = tmp_path / "passcode"
    passcode.touch(0o600)
    passcode.write_text("open sesame\n", encoding="utf-8")
    with archive_running(OfStudies([image(1, study=HERE)])) as archive:
        node = LiveNode(tmp_path, tmp_path / "banks", Destination("pacs", "PACS", host, port))
        node.add("archives", name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=archive.port)
        node.add(
            "ups_sources",
            name="ris",
            ae_title="MANAGER",
            host="127.0.0.1",
            port=provider.port,
            mode="subscribe",
            poll_seconds=3600,
            username="node",
            passcode_file=str(passcode),
        )
        provider.listeners["DICOMNODE"] = node.port
        with running(node):
            until(lambda: bool(provider.subscribers), "it has subscribed", 30)
            yield node
    sink.stop()


def _tasks(node: LiveNode) -> dict[str, dict[str, Any]]:
    return {task["study_instance_uid"]: task for task in node.json("worklist", "tasks")}


def test_what_a_provider_tells_of_is_done_and_what_it_takes_back_is_canceled(
    node: LiveNode, provider: UpsProvider, tmp_path: Path
) -> None:
    done, hopeless = item(1, HERE), item(2, NOWHERE)
    provider.put(done)
    until(lambda: provider.state(done.SOPInstanceUID) == "COMPLETED", "the step is completed", 60)
    (sent,) = [dcmread(path) for path in (tmp_path / "pacs").glob("*.dcm")]
    told = provider.items[done.SOPInstanceUID].ds.UnifiedProcedureStepPerformedProcedureSequence[0]
    (output,) = told.OutputInformationSequence
    assert output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == sent.SOPInstanceUID
    assert (output.StudyInstanceUID, sent.StudyInstanceUID) == (HERE, HERE)
    assert output.DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"

    provider.put(hopeless)
    until(lambda: provider.state(hopeless.SOPInstanceUID) == "IN PROGRESS", "the step is claimed", 30)
    assert provider.ask_to_cancel(hopeless.SOPInstanceUID) == [0]
    until(lambda: provider.state(hopeless.SOPInstanceUID) == "CANCELED", "the step is canceled", 30)
    told = provider.items[hopeless.SOPInstanceUID].ds.ProcedureStepProgressInformationSequence[0]
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    until(lambda: _tasks(node)[NOWHERE]["state"] == "canceled", "it is written down", 10)
    assert _tasks(node)[HERE]["state"] == "completed"
    assert _tasks(node)[NOWHERE]["discontinued"] == "110513"


def test_a_restarted_node_subscribes_again_and_does_what_was_scheduled_meanwhile(
    node: LiveNode, provider: UpsProvider
) -> None:
    assert node.stop() == 0
    provider.listeners.clear()  # nobody can be told
    provider.put(item(1, HERE))
    provider.listeners["DICOMNODE"] = node.port
    node.start()
    until(lambda: provider.state("2.25.771") == "COMPLETED", "the step is completed", 60)
    assert len(provider.subscribers) == 2
