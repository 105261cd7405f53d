"""Remembers which destinations let their senders wait, so that one that is away costs the others little.

A destination that does not answer holds a worker until the timeout. It is then left alone for twice as long
as it took, and looked at by one worker at a time: it costs at most a third of one worker, however many reports
wait for it. One that refuses at once costs nothing and is not left alone. Owns no row; forgotten at a restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class _Absence:
    reason: str
    took: timedelta
    since: datetime
    until: datetime


class Absences:
    """Absences by name of the destination. Safe to share between threads."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._absences: dict[str, _Absence] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> str | None:
        """Return why a destination should be left alone now; None if the caller should try it."""
        with self._lock:
            absence = self._absences.get(name)
            if absence is None:
                return None
            now = self._clock()
            if absence.since <= now < absence.until:  # unless the clock went back
                return absence.reason
            # The caller looks; the others wait for about as long as that will take.
            self._absences[name] = replace(absence, since=now, until=now + absence.took)
            return None

    def note(self, name: str, reason: str, took: timedelta) -> None:
        """Note that an attempt took so long and ended without an answer."""
        with self._lock:
            now = self._clock()
            self._absences[name] = _Absence(reason, took, now, now + 2 * took)

    def over(self, name: str) -> None:
        """Note that a destination has answered."""
        with self._lock:
            self._absences.pop(name, None)

    def all(self) -> frozenset[str]:
        """Return the destinations that are left alone now: nobody needs to ask for one of them."""
        with self._lock:
            now = self._clock()
            return frozenset(
                name for name, absence in self._absences.items() if absence.since <= now < absence.until
            )
