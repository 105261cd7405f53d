"""Parts of the day in which a destination is sent to."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.domain.limits import Window, until_open

NIGHT, NOON = Window.parse("22:00-06:00"), Window.parse("12:00-13:30")


def _at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 3, 4, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "wait"),
    [
        (_at(22), None),
        (_at(0), None),
        (_at(5, 59), None),
        (_at(6), timedelta(hours=6)),
        (_at(12), None),
        (_at(13, 30), timedelta(hours=8, minutes=30)),
        (_at(21, 59), timedelta(minutes=1)),
    ],
)
def test_outside_every_window_it_is_said_how_long_until_the_next(at, wait):
    assert until_open((NIGHT, NOON), at) == wait


def test_without_windows_it_is_always_open():
    assert until_open((), _at(3)) is None


_times = st.times().map(lambda at: at.replace(second=0, microsecond=0))


@given(
    st.lists(st.tuples(_times, _times).filter(lambda pair: pair[0] != pair[1]), min_size=1, max_size=3),
    st.times(),
)
def test_after_the_wait_a_window_is_open_and_never_before(pairs, clock):
    windows = [Window(*pair) for pair in pairs]
    at = datetime.combine(_at(0).date(), clock, UTC)
    wait = until_open(windows, at)
    if wait is None:
        assert any(window.holds(clock) for window in windows)
    else:
        assert timedelta(0) < wait <= timedelta(days=1)
        assert until_open(windows, at + wait) is None
        assert until_open(windows, at + wait - timedelta(microseconds=1)) == timedelta(microseconds=1)


def test_a_window_ends_just_before_its_end():
    assert NIGHT.holds(time(5, 59, 59))
    assert not NIGHT.holds(time(6))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("22-6", "write it as 22:00-06:00"),
        ("24:00-06:00", "no part of a day"),
        ("06:00-06:00", "whole day"),
        ("", "no part"),
    ],
)
def test_what_is_no_part_of_a_day_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        Window.parse(text)
