"""What a provider tells of its own accord: its event reports reach the node's SCP, are noted, and are acted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydicom import Dataset

from dicom_node.config import Receive
from dicom_node.db.engine import writing
from dicom_node.domain.performing import TaskState
from dicom_node.domain.retrieval import Fetched
from dicom_node.domain.types import ImageResult
from dicom_node.node import performing
from dicom_node.receive.scp import Scp
from dicom_node.receive.step_events import StepEvents
from tests.fakes import scored
from tests.integration.test_performer import STEP, STUDY, Desk, desk, provider
from tests.ups_provider import (
    ASSIGNED,
    PROGRESS_REPORT,
    STATE_REPORT,
    STATUS_CHANGE,
    SUBSCRIPTIONS,
    UpsProvider,
    code,
    item,
)

__all__ = ["desk", "provider"]

BEGUN = {"ProcedureStepState": "IN PROGRESS", "InputReadinessState": "READY"}


@pytest.fixture
def listening(desk: Desk, provider: UpsProvider) -> Iterator[None]:
    """Have the desk subscribe and its SCP take events; the worklist is empty, and seldom asked for unasked."""
    provider.items.clear()
    desk.settings |= {"mode": "subscribe", "poll_seconds": 1000.0}
    desk.start()

    def noted(sop_instance_uid: str, *, cancel: bool, restarted: bool) -> None:
        at, on = desk.site.clock, desk.site.engine
        performing.noted(on, at, [desk.perform], sop_instance_uid, cancel=cancel, restarted=restarted)

    scp = Scp(
        Receive.model_validate({"port": 0, "ae_title": "NODE", "peers": [{"ae_title": "MANAGER"}]}),
        incoming=desk.site.files.incoming,
        ingest=desk.site.ingest,
        admit=lambda: None,
        opened=lambda _facts: None,
        ended=lambda _id, _how: None,
        clock=desk.site.clock,
        services=[StepEvents(noted)],
    )
    scp.start()
    provider.listeners["NODE"] = scp.address[1]
    desk.perform()
    yield
    scp.stop(drain_seconds=1.0)


pytestmark = pytest.mark.usefixtures("listening")


def test_a_step_that_the_provider_tells_of_is_performed_before_the_provider_would_be_asked(
    desk: Desk, provider: UpsProvider
) -> None:
    desk.turn()
    assert desk.states() == []
    provider.put(item(1, STUDY))
    desk.turns(5)
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]


def test_a_step_that_is_assigned_to_this_node_later_is_performed_then(
    desk: Desk, provider: UpsProvider
) -> None:
    desk.settings["station_names"] = ("NODE",)
    desk.start()
    step = item(1, STUDY)
    step.ScheduledStationNameCodeSequence = [code("OTHER", "L", "Another")]
    provider.put(step)
    desk.turns(2)
    assert provider.state(STEP) == "SCHEDULED"
    step.ScheduledStationNameCodeSequence = [code("NODE", "L", "This node")]
    told = provider.tell(STEP, ASSIGNED, ScheduledStationNameCodeSequence=step.ScheduledStationNameCodeSequence)
    assert told == [0]
    desk.turns(5)
    assert provider.state(STEP) == "COMPLETED"


def _waits_for_its_input(desk: Desk, _provider: UpsProvider) -> None:
    desk.fetches = lambda _what: Fetched(0, 1, 1, "one image failed")
    desk.perform()
    assert desk.states() == [TaskState.FETCHING]


def _waits_for_its_analysis(desk: Desk, _provider: UpsProvider) -> None:
    desk.perform()
    desk.site.clock.forward(40)
    desk.site.gather()
    desk.perform()
    assert desk.states() == [TaskState.WAITING]


@pytest.mark.parametrize("begin", [_waits_for_its_input, _waits_for_its_analysis])
def test_a_request_to_cancel_is_followed_at_once_with_a_coded_reason(
    desk: Desk, provider: UpsProvider, begin: Callable[[Desk, UpsProvider], None]
) -> None:
    provider.put(item(1, STUDY))
    begin(desk, provider)
    assert provider.ask_to_cancel(STEP) == [0]
    desk.perform()
    held = provider.items[STEP]
    assert held.went == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    told = held.ds.ProcedureStepProgressInformationSequence[0]
    (why,) = told.ProcedureStepDiscontinuationReasonCodeSequence
    assert (why.CodeValue, why.CodingSchemeDesignator) == ("110513", "DCM")
    assert why.CodeMeaning == told.ReasonForCancellation == "Discontinued for unspecified reason"
    assert told.ProcedureStepCancellationDateTime
    assert desk.states() == ["canceled"]
    assert desk.reason() == "its cancellation was asked for before its analysis was begun"


def test_a_request_to_cancel_that_comes_while_a_worker_has_the_task_is_followed_as_soon_as_it_lets_go(
    desk: Desk, provider: UpsProvider
) -> None:
    provider.put(item(1, STUDY))
    _waits_for_its_analysis(desk, provider)
    desk.site.clock.forward(100)
    told: list[int] = []

    def tell_once(what: str, when: str) -> None:
        if (what, when) == ("N-SET", "after") and not told:
            told.extend(provider.ask_to_cancel(STEP))

    provider.fault = tell_once
    desk.perform()  # it says that it waits, and is asked to cancel before it has the answer
    assert told == [0]
    assert provider.state(STEP) == "CANCELED"


def test_a_request_to_cancel_is_not_followed_once_the_analysis_is_begun(
    desk: Desk, provider: UpsProvider
) -> None:
    asked: list[list[int]] = []

    def judge(ds: Dataset) -> ImageResult:
        asked.append(provider.ask_to_cancel(STEP))
        desk.perform()
        return scored(ds)

    desk.site.judge = judge
    provider.put(item(1, STUDY))
    desk.turns(5)
    assert asked == [[0]]
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "COMPLETED"]


def test_events_on_steps_of_others_change_nothing(desk: Desk, provider: UpsProvider) -> None:
    provider.put(item(1, STUDY))
    desk.perform()
    provider.put(item(2, "2.25.2"))
    assert provider.ask_to_cancel("2.25.772") == [0]
    assert provider.tell("2.25.9999", PROGRESS_REPORT, **BEGUN) == [0]
    desk.turns(6)
    assert [held.went[-1] for held in provider.items.values()] == ["COMPLETED", "COMPLETED"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_what_is_no_event_or_names_no_step_is_refused(provider: UpsProvider) -> None:
    assert provider.tell(STEP, 9, **BEGUN) == [0x0113]
    assert provider.tell("2.25.x", STATE_REPORT, **BEGUN) == [0x0117]


def test_an_event_that_cannot_be_kept_is_not_answered_with_success(desk: Desk, provider: UpsProvider) -> None:
    provider.put(item(1, STUDY))
    desk.perform()
    with writing(desk.site.engine) as conn:
        conn.exec_driver_sql("ALTER TABLE tasks RENAME TO away")
    assert provider.ask_to_cancel(STEP) == [0x0110]
    with writing(desk.site.engine) as conn:
        conn.exec_driver_sql("ALTER TABLE away RENAME TO tasks")
    assert provider.ask_to_cancel(STEP) == [0]


def test_a_provider_that_was_started_anew_is_subscribed_to_anew(desk: Desk, provider: UpsProvider) -> None:
    desk.turns(2)
    assert len(provider.subscribers) == 1
    told = {"SCPStatus": "RESTARTED", "SubscriptionListStatus": "COLD START"}
    assert provider.tell(SUBSCRIPTIONS[0], STATUS_CHANGE, **told) == [0]
    provider.subscribers.clear()
    desk.turn()
    assert len(provider.subscribers) == 1


def _takes_no_subscription(provider: UpsProvider) -> None:
    provider.watched = False


def _aborts_at_a_query(provider: UpsProvider) -> None:
    provider.fault = lambda what, _when: "abort" if what == "C-FIND" else None


@pytest.mark.parametrize("spoil", [_takes_no_subscription, _aborts_at_a_query])
def test_a_provider_that_cannot_be_watched_or_asked_now_is_asked_as_often_as_without_events(
    desk: Desk, provider: UpsProvider, spoil: Callable[[UpsProvider], None]
) -> None:
    provider.subscribers.clear()  # it has forgotten, and tells nothing
    spoil(provider)
    desk.start()
    desk.turns(2)
    provider.fault = lambda _what, _when: None
    provider.put(item(1, STUDY))
    desk.site.clock.forward(1000)
    desk.turns(5)
    assert provider.state(STEP) == "COMPLETED"
