"""How much a destination is asked to take, when, and how often it is tried again. Standard library only; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of every day, from `start` until just before `end`; over midnight where `end` is not later."""

    start: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """Return the window that a text such as ``22:00-06:00`` stands for.

        Raises
        ------
        ValueError
            If it is none, or begins when it ends.
        """
        match = _WINDOW.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no part of a day; write it as 22:00-06:00")
        begin_hour, begin_minute, end_hour, end_minute = map(int, match.groups())
        window = cls(time(begin_hour, begin_minute), time(end_hour, end_minute))
        if window.start == window.end:
            raise ValueError(f"{text!r} ends when it begins; leave the schedule out for the whole day")
        return window

    def holds(self, at: time) -> bool:
        """Return whether a time of day lies within the window."""
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def until_open(windows: Sequence[Window], at: datetime) -> timedelta | None:
    """Return how long it is until the next window begins; None where one is open, or there are none.

    Parameters
    ----------
    at
        Wall clock time of the place that the windows are for. Over a change to or from daylight saving time the
        answer is an hour off; who asks again then gets the right one.
    """
    if not windows or any(window.holds(at.time()) for window in windows):
        return None
    begins = (
        at.replace(hour=window.start.hour, minute=window.start.minute, second=0, microsecond=0)
        for window in windows
    )
    return min(moment - at if moment > at else moment + timedelta(days=1) - at for moment in begins)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one destination is given at a time, and its rules for trying again.

    Attributes
    ----------
    max_associations
        Most deliveries to it at a time, of all workers of a queue together; None for no limit.
    attempts, backoff_seconds, backoff_cap_seconds
        Instead of the queue's own; None leaves it at those.
    windows
        When it is sent to; empty for always.
    """

    max_associations: int | None = None
    attempts: int | None = None
    backoff_seconds: float | None = None
    backoff_cap_seconds: float | None = None
    windows: tuple[Window, ...] = ()
