"""Watchers hear what happens to the steps they chose, in every kind of event of PS3.4 table CC.2.4-1."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import Dataset
from sqlalchemy import Engine, select

from dicom_node.config import Config
from dicom_node.db.engine import reading
from dicom_node.db.schema import metadata
from dicom_node.db.schema_steps import step_subscriptions
from dicom_node.deliver import step_events as sending
from dicom_node.domain.types import Kind
from dicom_node.node import open_node, stepping
from tests.workflow import FILTERED, GLOBAL, STEP, STUDY, Listener, Manager, Provider, asked

CANCEL_REQUESTED, PROGRESS, STATUS, ASSIGNED = 2, 3, 4, 5
OTHER = "2.25.816"


def other(**changes: object) -> Dataset:
    """Return a step for another patient and study."""
    return asked(
        PatientName="Doe^John",
        PatientID="P2",
        InputInformationSequence=None,
        StudyInstanceUID="2.25.1",
        **changes,
    )


def subscriptions(provider: Provider) -> list[str]:
    with reading(provider.site.engine) as conn:
        return sorted(conn.execute(select(step_subscriptions.c.sop_instance_uid)).scalars())


def everything_in(engine: Engine) -> str:
    """Return all rows of all tables as text."""
    with reading(engine) as conn:
        return "\n".join(str(row) for table in metadata.tables.values() for row in conn.execute(select(table)))


def subscribe(manager: Manager, uid: str, lock: str = "FALSE", **keys: object) -> int:
    return manager.act(
        3, uid, SpecificCharacterSet="ISO_IR 192", ReceivingAE="MANAGER", DeletionLock=lock, **keys
    )


@pytest.mark.parametrize("lock", ["TRUE", "FALSE"])
def test_a_filtered_subscription_tells_of_matching_steps_those_made_later_too(provider, manager, lock):
    with provider.listening() as listener:
        manager.create(other(), OTHER)
        manager.create(asked())
        assert subscribe(manager, FILTERED, lock, PatientName="山田*", ScheduledProcedureStepPriority="") == 0
        manager.create(other(), "2.25.817")
        manager.create(asked(), "2.25.818")
        provider.tell()
        assert [uid for uid, _ in listener.heard] == [STEP, "2.25.818"]
        manager.act(2, OTHER)
        manager.act(2, STEP)
        provider.tell()
        assert listener.heard[2:] == [(STEP, "IN PROGRESS"), (STEP, "CANCELED")]
        assert "山田" not in everything_in(provider.site.engine)


def test_a_filter_looks_at_the_state_that_a_step_has_in_the_event(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, FILTERED, ProcedureStepState="CANCELED") == 0
        manager.act(2)
        provider.tell()
        assert listener.heard == [(STEP, "CANCELED")]


def test_the_nodes_own_steps_are_filtered_by_what_their_images_say(provider, manager):
    with provider.listening() as listener:
        provider.steps.follow()
        assert subscribe(manager, FILTERED, PatientName="DOE*", StudyInstanceUID=STUDY) == 0
        provider.study()
        provider.complete()
        provider.tell()
        (found,) = manager.find(StudyInstanceUID=STUDY)
        assert listener.heard == [(found.SOPInstanceUID, "SCHEDULED")]


def test_matching_keys_go_when_their_subscription_is_ended_or_replaced(provider, manager):
    with provider.listening():
        assert subscribe(manager, FILTERED, PatientName="山田*") == 0
        (first,) = provider.kept()
        assert subscribe(manager, FILTERED, PatientName="山*") == 0
        (second,) = provider.kept()
        assert second != first
        assert subscribe(manager, GLOBAL) == 0
        assert provider.kept() == []
        assert subscriptions(provider) == [GLOBAL]
        assert subscribe(manager, FILTERED, PatientName="山*") == 0
        assert subscriptions(provider) == [FILTERED]
        assert manager.act(4, FILTERED, ReceivingAE="MANAGER") == 0
        assert (provider.kept(), subscriptions(provider)) == ([], [])


@pytest.mark.parametrize("uid", [FILTERED, GLOBAL])
def test_who_comes_back_and_subscribes_again_hears_how_a_step_ended_meanwhile(provider, manager, uid):
    assert manager.create(asked()) == 0
    with provider.listening() as listener:
        assert manager.act(3, FILTERED, ReceivingAE="MANAGER", PatientID="P1") == 0
        provider.tell()
        provider.study()
        provider.complete()
        provider.site.work()
        provider.steps.follow()
        assert (
            manager.act(3, uid, ReceivingAE="MANAGER", **({"PatientID": "P1"} if uid == FILTERED else {})) == 0
        )
        provider.tell()
        states = [state for one, state in listener.heard if one == STEP]
        assert states == ["SCHEDULED", "SCHEDULED", "IN PROGRESS", "COMPLETED"]


def test_a_filtered_subscription_without_keys_is_refused(provider, manager):
    with provider.listening():
        assert manager.act(3, FILTERED, ReceivingAE="MANAGER", DeletionLock="FALSE") == 0x0120
        assert provider.kept() == []


def test_who_ends_a_filtered_subscription_hears_no_more_not_even_what_was_owed(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, FILTERED, PatientID="P1") == 0
        assert manager.act(4, GLOBAL, ReceivingAE="MANAGER") == 0
        assert provider.tell() == 0
        assert listener.events == []


@pytest.mark.parametrize(("uid", "keys"), [(GLOBAL, {}), (FILTERED, {"PatientID": "P1"})])
def test_who_suspends_hears_on_of_steps_that_are_there_and_not_of_those_made_later(
    provider, manager, uid, keys
):
    with provider.listening() as listener:
        assert subscribe(manager, uid, **keys) == 0
        manager.create(asked())
        assert manager.act(5, uid, ReceivingAE="MANAGER") == 0
        provider.site.clock.forward(1)
        manager.create(asked(), "2.25.818")
        manager.act(2)
        manager.act(2, "2.25.818")
        provider.tell()
        assert listener.heard == [(STEP, state) for state in ("SCHEDULED", "IN PROGRESS", "CANCELED")]
        assert manager.act(5, STEP, ReceivingAE="MANAGER") == 0xC314


def test_what_is_said_of_one_step_counts_before_what_is_said_of_all(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        manager.create(other(), OTHER)
        assert subscribe(manager, GLOBAL) == 0
        assert manager.act(4, STEP, ReceivingAE="MANAGER") == 0
        provider.tell()
        manager.act(2)
        manager.act(2, OTHER)
        provider.tell()
        assert {uid for uid, _ in listener.heard} == {OTHER}
        assert subscribe(manager, GLOBAL) == 0
        provider.tell()
        assert subscriptions(provider) == [GLOBAL]


def test_a_subscription_to_all_with_a_lock_tells_of_ended_steps_too(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        manager.act(2)
        assert subscribe(manager, GLOBAL) == 0
        provider.tell()
        assert listener.heard == []
        assert subscribe(manager, GLOBAL, "TRUE") == 0
        provider.tell()
        assert listener.heard == [(STEP, "CANCELED")]


def test_what_one_process_is_telling_no_other_tells_too_and_the_order_stays(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, STEP) == 0
        seen = []

        def meanwhile(peer, events):
            manager.act(2)
            seen.append(provider.tell())
            return sending.tell(peer, events, calling_ae_title="DICOMNODE", timeout=5.0)

        assert provider.tell(meanwhile) == 1
        assert seen == [0]
        assert listener.heard == [(STEP, "SCHEDULED")]
        assert provider.tell() == 3
        assert listener.heard[1:] == [(STEP, "IN PROGRESS"), (STEP, "CANCELED")]


def test_what_a_process_was_telling_when_it_died_is_told_by_another(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, STEP) == 0

        def dies(_peer, _events):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            provider.tell(dies)
        assert provider.tell() == 0
        provider.site.clock.forward(61)
        assert provider.tell() == 1
        assert listener.heard == [(STEP, "SCHEDULED")]


def test_progress_is_reported_as_the_step_itself_says_it(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, STEP) == 0
        provider.study()
        provider.complete()
        judge, seen = provider.site.judge, []

        def first_fails(ds):
            provider.steps.follow()
            seen.append(manager.get().ProcedureStepProgressInformationSequence[0])
            if len(seen) == 1:
                raise RuntimeError("once")
            return judge(ds)

        provider.site.judge = first_fails
        for _ in range(2):
            provider.site.work()
            provider.site.clock.forward(60)
        provider.steps.follow()
        provider.tell()
    told = [ds.ProcedureStepProgressInformationSequence[0] for ds in listener.of(PROGRESS)]
    assert [(str(one.ProcedureStepProgress), one.ProcedureStepProgressDescription) for one in told] == [
        ("0", "the analysis has begun"),
        ("0", "attempt 2 of the analysis"),
        ("100", "the analysis is done"),
    ]
    now = manager.get().ProcedureStepProgressInformationSequence[0]
    assert [*seen, now] == told
    assert [kind for kind, _, _ in listener.events[-2:]] == [PROGRESS, 1], "the end is told last"


def test_a_step_is_assigned_to_this_node_when_its_input_is_here(provider, manager):
    with provider.listening() as listener:
        assert subscribe(manager, GLOBAL) == 0
        manager.create(asked())
        provider.tell()
        assert listener.of(ASSIGNED) == []
        assert not manager.get().get("ScheduledStationNameCodeSequence")
        provider.study()
        provider.complete()
        provider.tell()
        (told,) = listener.of(ASSIGNED)
        assert told.ScheduledStationNameCodeSequence == manager.get().ScheduledStationNameCodeSequence
        assert told.ScheduledStationNameCodeSequence[0].CodeValue == "DICOMNODE"


def test_whom_the_creator_named_is_told_at_once_and_once(provider, manager):
    performer = Dataset()
    performer.HumanPerformerName, performer.HumanPerformerOrganization = "Röntgen^W", "Würzburg"
    with provider.listening() as listener:
        assert subscribe(manager, GLOBAL) == 0
        manager.create(asked(ScheduledHumanPerformersSequence=[performer]))
        provider.study()
        provider.complete()
        provider.tell()
        (told,) = listener.of(ASSIGNED)
        assert str(told.ScheduledHumanPerformersSequence[0].HumanPerformerName) == "Röntgen^W"
        assert "ScheduledStationNameCodeSequence" not in told


def test_who_asks_to_cancel_and_what_he_says_is_told_and_is_not_kept(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, STEP) == 0
        said = {
            "ReasonForCancellation": "MARKED^NAME went home",
            "ContactURI": "tel:+1",
            "ContactDisplayName": "Desk",
        }
        assert manager.act(2, SpecificCharacterSet="ISO_IR 192", **said) == 0
        assert "MARKED" not in everything_in(provider.site.engine)
        assert len(provider.kept()) == 2
        provider.tell()
        (told,) = listener.of(CANCEL_REQUESTED)
        assert {**said, "RequestingAE": "MANAGER"} == {
            one.keyword: one.value for one in told if one.keyword != "SpecificCharacterSet"
        }
        assert [kind for kind, _, _ in listener.events] == [1, CANCEL_REQUESTED, 1, 1]
        assert len(provider.kept()) == 1, "what was told is not kept"


def test_a_request_to_cancel_that_is_refused_is_told_to_nobody(provider, manager):
    with provider.listening() as listener:
        manager.create(asked())
        assert subscribe(manager, STEP) == 0
        provider.study()
        provider.complete()
        answers = []
        judge = provider.site.judge

        def asks_meanwhile(ds):
            answers.append(manager.act(2, ReasonForCancellation="too late"))
            return judge(ds)

        provider.site.judge = asks_meanwhile
        provider.site.work()
        provider.steps.follow()
        provider.tell()
    assert answers == [0xC313]
    assert listener.of(CANCEL_REQUESTED) == []
    assert listener.heard[-1] == (STEP, "COMPLETED")
    assert len(provider.kept()) == 1, "what it said is not kept"
    assert provider.site.items(Kind.ANALYSE)[0].attempts == 1


def test_a_node_says_that_it_is_there_and_that_it_goes_to_who_watches_all_and_to_nobody_else(tmp_path: Path):
    first, second = Listener(), Listener("OTHER")
    peers = [
        {"ae_title": "MANAGER", "host": "127.0.0.1", "port": first.port},
        {"ae_title": "OTHER", "host": "127.0.0.1", "port": second.port},
    ]
    config = Config.model_validate(
        {
            "store": {"root": str(tmp_path / "store")},
            "db": {"url": f"sqlite:///{tmp_path / 'node.db'}"},
            "receive": {"port": 0, "procedure_steps": True, "peers": peers},
        }
    )
    with open_node(config) as node:
        watching = stepping.watching(node)
        said = Dataset()
        said.DeletionLock = "FALSE"
        assert stepping.steps(node).create(STEP, asked(), "OTHER") == STEP
        assert watching.subscribe(GLOBAL, said, "MANAGER", "127.0.0.1") == 0
        assert watching.subscribe(STEP, said, "OTHER", "127.0.0.1") == 0
        tell = {name: duty for name, _, duty in stepping.duties(node)}["tell procedure step events"]
        with stepping.present(node):
            tell()
            tell()
    first.server.shutdown()
    second.server.shutdown()
    told = [
        (ds.SCPStatus, ds.SubscriptionListStatus, ds.UnifiedProcedureStepListStatus) for ds in first.of(STATUS)
    ]
    assert told == [("RESTARTED", "WARM START", "WARM START"), ("GOING DOWN", "WARM START", "WARM START")]
    assert {uid for kind, uid, _ in first.events if kind == STATUS} == {GLOBAL}
    assert (second.of(STATUS), len(second.of(1))) == ([], 1)
