"""A destination that lets its senders wait is left alone for a while, and then looked at by one worker."""

from __future__ import annotations

from datetime import timedelta

from dicom_node.pipeline.absences import Absences
from tests.fakes import ManualClock


def test_one_that_took_long_is_left_alone_for_twice_as_long_and_nobody_else_is() -> None:
    clock = ManualClock()
    absences = Absences(clock)
    absences.note("pacs", "no answer within 30 s", timedelta(seconds=30))
    clock.forward(59)
    assert (absences.of("pacs"), absences.of("vna")) == ("no answer within 30 s", None)
    clock.forward(1)
    assert absences.of("pacs") is None


def test_after_the_pause_one_looks_and_the_others_wait_as_long_as_that_takes() -> None:
    clock = ManualClock()
    absences = Absences(clock)
    absences.note("pacs", "no answer", timedelta(seconds=30))
    clock.forward(60)
    assert absences.of("pacs") is None
    assert absences.of("pacs") == "no answer"
    clock.forward(30)
    assert absences.of("pacs") is None


def test_one_that_refused_at_once_is_not_left_alone() -> None:
    absences = Absences(ManualClock())
    absences.note("pacs", "connection refused", timedelta(0))
    assert absences.of("pacs") is None


def test_an_answer_ends_the_pause() -> None:
    absences = Absences(ManualClock())
    absences.note("pacs", "no answer", timedelta(seconds=30))
    absences.over("pacs")
    assert absences.of("pacs") is None


def test_a_clock_that_went_back_ends_the_pause() -> None:
    clock = ManualClock()
    absences = Absences(clock)
    absences.note("pacs", "no answer", timedelta(seconds=30))
    clock.forward(-3600)
    assert absences.of("pacs") is None
    assert absences.of("pacs") == "no answer"
