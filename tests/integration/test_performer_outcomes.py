"""How a performed step ends: completed once the report is where it must be, or canceled with a coded reason."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import pytest
from pydicom import Dataset

from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import DestinationAwayError, DestinationRefusedError
from dicom_node.domain.retrieval import Fetch, Fetched
from dicom_node.domain.states import State
from dicom_node.domain.types import Destination, Kind
from dicom_node.queue import items
from dicom_node.store import reports
from tests.integration.test_performer import STEP, STUDY, Desk, desk, provider
from tests.ups_provider import UpsProvider, item

__all__ = ["desk", "provider"]

CR, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.7"
KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def test_input_that_cannot_be_had_cancels_the_step_with_a_code(desk: Desk, provider: UpsProvider) -> None:
    desk.settings["input_attempts"] = 2
    desk.start()

    def refuse(_what: Fetch) -> Fetched:
        raise DestinationRefusedError("the archive says no")

    desk.fetches = refuse
    desk.turns(6)
    held = provider.items[STEP]
    assert held.went == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    told = held.ds.ProcedureStepProgressInformationSequence[0]
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110523"
    assert desk.states() == ["canceled"]
    assert "the archive says no" in desk.reason()


def test_an_archive_that_was_away_for_long_is_asked_as_often_as_any_other(
    desk: Desk, provider: UpsProvider
) -> None:
    desk.settings["input_attempts"] = 3
    desk.start()

    def away(_what: Fetch) -> Fetched:
        asked.append(desk.site.clock())
        raise DestinationAwayError("the archive is away")

    asked: list[datetime] = []
    desk.fetches = away
    desk.turns(40)
    assert (asked[1] - asked[0]).total_seconds() == 40
    assert 300 <= (asked[-1] - asked[-2]).total_seconds() <= 340
    twice = iter([Fetched(0, 1, 1, "one image failed")] * 2)
    desk.fetches = lambda what: next(twice, None) or desk.bring(what)
    desk.turns(16)
    assert provider.state(STEP) == "COMPLETED"


def test_input_of_two_studies_cancels_the_step(desk: Desk, provider: UpsProvider) -> None:
    step = provider.items[STEP].ds
    step.InputInformationSequence.append(item(2, "2.25.99").InputInformationSequence[0])
    desk.turns(3)
    assert provider.state(STEP) == "CANCELED"
    assert "2 studies" in desk.reason()


def _refer(step: Dataset, *objects: tuple[str, str]) -> None:
    source = step.InputInformationSequence[0]
    source.SeriesInstanceUID, source.ReferencedSOPSequence = f"{STUDY}.0", []
    for sop_class, uid in objects:
        one = Dataset()
        one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = sop_class, uid
        source.ReferencedSOPSequence.append(one)


def test_an_image_that_the_input_names_and_the_archive_has_not_cancels_the_step(
    desk: Desk, provider: UpsProvider
) -> None:
    _refer(provider.items[STEP].ds, (CR, f"{STUDY}.1"), (CR, f"{STUDY}.2"))
    desk.settings["input_attempts"] = 2
    desk.start()
    desk.turns(6)
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert desk.reason() == "1 of 2 images that its input names are not in pacs"


def test_a_report_that_the_input_names_beside_an_image_is_not_waited_for(
    desk: Desk, provider: UpsProvider
) -> None:
    _refer(provider.items[STEP].ds, (CR, f"{STUDY}.1"), (KEY_OBJECTS, f"{STUDY}.8"))
    desk.turns(4)
    assert provider.state(STEP) == "COMPLETED"
    assert desk.fetched == [Fetch(STUDY, (f"{STUDY}.0",), (f"{STUDY}.1",))]


def test_an_object_of_this_node_that_the_input_names_is_not_waited_for(
    desk: Desk, provider: UpsProvider
) -> None:
    desk.turns(4)
    with reading(desk.site.engine) as conn:
        (report,) = reports.of_study(conn, STUDY)
    again = item(2, STUDY)
    _refer(again, (CR, f"{STUDY}.1"), (SECONDARY_CAPTURE, report.sop_instance_uid))
    provider.put(again)
    desk.turns(8)
    assert provider.state("2.25.772") == "COMPLETED"


def test_the_code_of_a_step_comes_back_in_whatever_script_it_is(desk: Desk, provider: UpsProvider) -> None:
    step = provider.items[STEP].ds
    step.SpecificCharacterSet = "ISO_IR 192"
    step.ScheduledWorkitemCodeSequence[0].CodeMeaning = "コンピュータ支援検出"
    desk.turns(4)
    done = provider.items[STEP].ds.UnifiedProcedureStepPerformedProcedureSequence[0]
    assert done.PerformedWorkitemCodeSequence[0].CodeMeaning == "コンピュータ支援検出"


def test_a_failed_analysis_cancels_the_step_as_equipment_failure(desk: Desk, provider: UpsProvider) -> None:
    def broken(_ds: object) -> object:
        raise RuntimeError

    desk.site._score = broken  # type: ignore[assignment, method-assign]
    desk.site.analyse._analyse = broken  # type: ignore[attr-defined]
    desk.site.judge = broken  # type: ignore[assignment]
    desk.turns(14)
    told = provider.items[STEP].ds.ProcedureStepProgressInformationSequence[0]
    assert provider.state(STEP) == "CANCELED"
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110501"


def _away_but(*names: str) -> Callable[[Destination], int]:
    def answer(destination: Destination) -> int:
        if destination.name not in names:
            raise DestinationAwayError(f"{destination.name} is away")
        return 0

    return answer


@pytest.mark.parametrize(
    ("awaited", "there", "told"),
    [
        (("pacs",), ("pacs",), ["PACS"]),
        (("vna", "pacs"), ("pacs", "vna"), ["PACS", "VNA"]),
        (None, ("pacs", "vna"), ["PACS", "VNA"]),
        ((), (), None),
    ],
)
def test_a_step_is_completed_once_those_that_are_waited_for_have_the_report(
    desk: Desk,
    provider: UpsProvider,
    awaited: tuple[str, ...] | None,
    there: tuple[str, ...],
    told: list[str] | None,
) -> None:
    desk.settings["wait_for_delivery"] = awaited
    desk.start()
    if there:
        desk.site.peer.answer = _away_but(*there[1:])
        desk.turns(2)
        assert desk.states() == ["delivering"]
        assert provider.state(STEP) == "IN PROGRESS"
    desk.site.peer.answer = _away_but(*there)
    desk.turns(5)
    assert provider.state(STEP) == "COMPLETED"
    done = provider.items[STEP].ds.UnifiedProcedureStepPerformedProcedureSequence[0]
    places = done.OutputInformationSequence[0].get("DICOMRetrievalSequence")
    title = places and places[0].RetrieveAETitle
    assert (title if told is None or len(told) > 1 else [title]) == told


def test_a_delivery_that_failed_is_told_and_waited_for_until_a_person_has_it_tried_again(
    desk: Desk, provider: UpsProvider
) -> None:
    def refuse(destination: Destination) -> int:
        if destination.name == "vna":
            raise DestinationRefusedError("the vna says no")
        return 0

    desk.site.peer.answer = refuse
    desk.turns(5)
    assert desk.states() == ["delivering"]
    assert desk.reason() == "delivery to vna has failed and waits for a person"
    desk.site.peer.answer = lambda _destination: 0
    with writing(desk.site.engine) as conn:
        (failed,) = items.listing(conn, state=State.FAILED)
        items.requeue(conn, failed.id, desk.site.clock())
    desk.turns(4)
    assert provider.state(STEP) == "COMPLETED"
    assert desk.reason() == ""


def test_a_delivery_that_a_person_cancels_is_not_waited_for(desk: Desk, provider: UpsProvider) -> None:
    desk.site.peer.answer = _away_but("pacs")
    desk.turns(2)
    assert desk.states() == ["delivering"]
    with writing(desk.site.engine) as conn:
        (left,) = [one for one in items.listing(conn, kind=Kind.DELIVER) if one.state is not State.COMPLETED]
        items.cancel(conn, left.id, desk.site.clock())
    desk.turns(3)
    assert provider.state(STEP) == "COMPLETED"
    done = provider.items[STEP].ds.UnifiedProcedureStepPerformedProcedureSequence[0]
    assert done.OutputInformationSequence[0].DICOMRetrievalSequence[0].RetrieveAETitle == "PACS"


def test_an_analysis_that_a_person_cancels_cancels_the_step(desk: Desk, provider: UpsProvider) -> None:
    desk.perform()
    desk.site.clock.forward(40)
    desk.site.gather()
    with writing(desk.site.engine) as conn:
        (analysis,) = items.listing(conn, kind=Kind.ANALYSE)
        items.cancel(conn, analysis.id, desk.site.clock())
    desk.turns(3)
    told = provider.items[STEP].ds.ProcedureStepProgressInformationSequence[0]
    assert provider.state(STEP) == "CANCELED"
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"
    assert desk.reason() == "its analysis was canceled here"


def test_a_provider_that_wants_more_than_the_standard_for_a_completed_step_gets_a_canceled_one(
    desk: Desk, provider: UpsProvider
) -> None:
    provider.fault = lambda what, when: 0xC304 if (what, when) == ("COMPLETED", "before") else None
    desk.turns(4)
    assert desk.reason() == "the provider says: what it tells is not enough for its final state"
    desk.turns(6)
    told = provider.items[STEP].ds.ProcedureStepProgressInformationSequence[0]
    assert provider.items[STEP].went == ["SCHEDULED", "IN PROGRESS", "CANCELED"]
    assert told.ProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110501"
    assert sorted(name for name, _ in desk.site.peer.kept) == ["pacs", "vna"]
