"""The node as UPS provider (PS3.4 annex CC), asked by a client that knows only the standard and pynetdicom."""

from __future__ import annotations

import pytest
from pydicom import Dataset

from dicom_node.config import Config, Receive
from dicom_node.db.engine import reading
from dicom_node.domain.states import State
from dicom_node.domain.types import Kind
from dicom_node.node import open_node, receiving
from dicom_node.pipeline.step_inputs import fetch_inputs
from dicom_node.store import expected, reports
from tests.workflow import GLOBAL, PULL, PUSH, STEP, STUDY, Manager, asked

OTHER = "2.25.816"


def test_a_step_that_is_asked_for_is_watched_from_its_creation_to_its_completion(provider, manager):
    with provider.listening() as listener:
        assert manager.create(asked()) == 0
        assert manager.act(3, ReceivingAE="MANAGER", DeletionLock="FALSE") == 0
        waiting = manager.get()
        assert (waiting.ProcedureStepState, str(waiting.PatientName)) == ("SCHEDULED", "山田^太郎")
        with reading(provider.site.engine) as conn:
            assert expected.priority(conn, STUDY) == 3
        provider.study()
        provider.complete()
        provider.site.work()
        done = manager.get()
        assert done.ProcedureStepState == "COMPLETED"
        assert provider.tell() > 0
        states = [state for uid, state in listener.heard if uid == STEP]
    assert states[0] == "SCHEDULED"
    assert states[-2:] == ["IN PROGRESS", "COMPLETED"]
    performed = done.UnifiedProcedureStepPerformedProcedureSequence[0]
    assert performed.PerformedProcedureStepEndDateTime
    (output,) = performed.OutputInformationSequence
    with reading(provider.site.engine) as conn:
        (report,) = reports.of_study(conn, STUDY)
    assert output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.sop_instance_uid
    assert (output.StudyInstanceUID, output.SeriesInstanceUID) == (STUDY, report.series_instance_uid)


@pytest.mark.parametrize("analysed", [True, False], ids=["analysed before", "its analysis waits"])
def test_a_step_for_a_study_that_is_here_already_lists_the_report_it_brings(provider, manager, analysed):
    provider.study()
    provider.complete()
    if analysed:
        provider.site.work()
    assert manager.create(asked()) == 0
    provider.site.work()
    done = manager.get()
    assert done.ProcedureStepState == "COMPLETED"
    (output,) = done.UnifiedProcedureStepPerformedProcedureSequence[0].OutputInformationSequence
    with reading(provider.site.engine) as conn:
        newest = reports.of_study(conn, STUDY)[-1]
    assert output.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == newest.sop_instance_uid


def test_the_nodes_own_work_is_a_step_that_is_found_by_patient_state_and_code(provider, manager):
    provider.steps.follow()
    provider.study()
    provider.complete()
    code = Dataset()
    code.CodeValue = "110004"
    (found,) = manager.find(
        PatientName="doe*",
        ProcedureStepState="SCHEDULED",
        ScheduledWorkitemCodeSequence=[code],
        StudyInstanceUID="",
    )
    assert found.StudyInstanceUID == STUDY
    assert not manager.find(PatientName="Roe*")
    assert not manager.find(ProcedureStepState="COMPLETED")
    assert manager.find(ProcedureStepState="*")
    assert manager.find(ScheduledProcedureStepStartDateTime="2000-2001") == []
    assert manager.find(SOPInstanceUID=[found.SOPInstanceUID, "1.2.3"])
    own = manager.get(found.SOPInstanceUID)
    assert own.InputInformationSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == "2.25.99"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"ProcedureStepState": "IN PROGRESS"}, 0xC309),
        ({"ProcedureStepLabel": None}, 0x0120),
        ({"WorklistLabel": ""}, 0x0121),
        ({"ScheduledProcedureStepPriority": "SOON"}, 0x0106),
        ({"ScheduledProcedureStepStartDateTime": "now"}, 0x0106),
        ({"InputInformationSequence": None}, 0x0120),
        ({"InputInformationSequence": None, "StudyInstanceUID": "Doe"}, 0x0106),
        ({"TransactionUID": "1.2.3"}, 0x0106),
    ],
)
def test_a_new_step_that_breaks_a_rule_is_refused_with_the_standards_status(manager, changes, status):
    assert manager.create(asked(**changes)) == status


def test_a_uid_is_used_once_and_one_that_is_none_is_refused(manager):
    assert manager.create(asked()) == 0
    assert manager.create(asked()) == 0x0111
    assert manager.create(asked(), None) == 0


def test_nobody_else_performs_the_nodes_steps(provider, manager):
    change = {"over": PULL, "TransactionUID": "1.2.3"}
    assert manager.act(1, "1.2.3.4", ProcedureStepState="IN PROGRESS", **change) == 0xC307
    manager.create(asked())
    assert manager.act(1, ProcedureStepState="SCHEDULED", **change) == 0xC303
    assert manager.act(1, over=PULL, ProcedureStepState="IN PROGRESS") == 0xC301
    assert manager.act(1, ProcedureStepState="IN PROGRESS", **change) == 0x0124
    assert manager.act(1, ProcedureStepState="COMPLETED", **change) == 0xC310
    provider.study()
    provider.complete()
    provider.site.work()
    assert manager.act(1, ProcedureStepState="IN PROGRESS", **change) == 0xC300
    assert manager.act(1, ProcedureStepState="CANCELED", **change) == 0xC301
    assert manager.act(2) == 0xC311
    status, _ = manager.association.send_n_set(asked(), PUSH, STEP, meta_uid=PULL)
    assert status.Status == 0xC300


def test_a_step_that_has_not_begun_is_canceled_when_asked(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert manager.act(3, GLOBAL, ReceivingAE="MANAGER", DeletionLock="FALSE") == 0
        assert manager.act(2) == 0
        assert manager.act(2) == 0xB304
        provider.tell()
        assert [state for _, state in listener.heard] == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    progress = manager.get().ProcedureStepProgressInformationSequence[0]
    assert progress.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_scheduled_analysis_is_canceled_and_one_retried_is_another_step(provider, manager):
    provider.steps.follow()
    provider.study()
    provider.complete()
    (found,) = manager.find(ProcedureStepState="SCHEDULED")
    assert manager.act(2, found.SOPInstanceUID) == 0
    (item,) = provider.site.items(Kind.ANALYSE)
    assert item.state is State.CANCELED


def test_who_withdraws_a_step_withdraws_no_analysis_that_others_wait_for(provider, manager):
    provider.steps.follow()
    provider.study()
    provider.complete()
    assert manager.create(asked()) == 0
    assert manager.create(asked(), OTHER) == 0
    with provider.listening() as listener:
        assert manager.act(3, ReceivingAE="MANAGER") == 0
        assert manager.act(2) == 0
        provider.tell()
        assert [state for _, state in listener.heard] == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    provider.site.work()
    assert manager.get().ProcedureStepState == "CANCELED"
    assert manager.get(OTHER).ProcedureStepState == "COMPLETED"
    assert len(manager.find(StudyInstanceUID=STUDY)) == 3, "the node's own, and the two that were asked for"
    with reading(provider.site.engine) as conn:
        assert len(reports.of_study(conn, STUDY)) == 1


def test_who_withdraws_the_nodes_own_step_withdraws_no_analysis_that_others_wait_for(provider, manager):
    provider.steps.follow()
    provider.study()
    provider.complete()
    (own,) = manager.find(ProcedureStepState="SCHEDULED")
    assert manager.create(asked()) == 0
    assert manager.act(2, own.SOPInstanceUID) == 0
    provider.site.work()
    assert manager.get(own.SOPInstanceUID).ProcedureStepState == "CANCELED"
    assert manager.get().ProcedureStepState == "COMPLETED"
    assert len(manager.find(StudyInstanceUID=STUDY)) == 2


def test_events_wait_for_a_subscriber_that_is_away_and_survive_a_restart(provider, manager):
    with provider.listening() as listener:
        port = listener.port
    manager.create(asked())
    provider.port = port
    assert manager.act(3, ReceivingAE="MANAGER") == 0
    assert provider.tell() == 0
    with provider.listening() as listener:
        assert provider.tell() == 0, "it is left alone for a moment"
        provider.site.clock.forward(3600)
        assert provider.tell() == 1
        assert listener.heard == [(STEP, "SCHEDULED")]


def test_who_subscribes_must_be_known_and_speak_for_itself(provider, manager):
    manager.create(asked())
    assert manager.act(3, ReceivingAE="MANAGER") == 0xC308
    assert manager.act(3, ReceivingAE="OTHER") == 0x0124
    assert manager.act(3) in (0x0115, 0x0120)
    assert manager.act(9, ReceivingAE="MANAGER") == 0x0123


def test_a_peer_whose_classes_are_named_gets_no_steps(provider):
    assert not Manager(provider.scp.address, "CR1").association.is_established


def test_input_that_cannot_be_fetched_cancels_the_step_in_the_end(provider, manager):
    manager.create(asked())
    for _ in range(20):
        fetch_inputs(provider.site.engine, lambda _archive, _study: False, provider.site.clock)
        provider.site.clock.forward(600)
    assert manager.get().ProcedureStepState == "CANCELED"


def test_a_node_that_is_configured_so_offers_its_steps_and_keeps_the_patient_out_of_the_database(tmp_path):
    config = Config.model_validate(
        {
            "store": {"root": str(tmp_path / "store")},
            "db": {"url": f"sqlite:///{tmp_path / 'node.db'}"},
            "receive": {"port": 0, "procedure_steps": True, "peers": [{"ae_title": "MANAGER"}]},
        }
    )
    with open_node(config) as node:
        with receiving(node) as address:
            before = Manager(address)
            assert before.create(asked(PatientName="MARKED^NAME")) == 0
            before.association.release()
        with receiving(node) as address:  # it has been stopped and started
            again = Manager(address)
            assert str(again.get().PatientName) == "MARKED^NAME"
            assert again.act(2) == 0
            again.association.release()
    (kept,) = (tmp_path / "store" / "steps").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not [path for path in tmp_path.glob("node.db*") if b"MARKED" in path.read_bytes()]
    trail = b"".join(path.read_bytes() for path in (tmp_path / "store" / "audit").rglob("*") if path.is_file())
    assert trail.count(b'"110111"') == 3, "made, got, canceled"
    assert b"MARKED" not in trail


def test_steps_are_not_offered_where_nobody_is_known():
    with pytest.raises(ValueError, match="name who may ask in receive"):
        Receive.model_validate({"procedure_steps": True})
