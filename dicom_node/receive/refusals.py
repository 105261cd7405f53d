"""The log of who was refused, so that a scanner cannot fill the disk with it. Owns counts; knows no sockets.

One line for each refusal, up to a few a minute from one address; what is left out is counted and told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds over which lines are counted."""

_LINES_OF_ONE_ADDRESS = 10
_LINES_OF_ALL = 100


class RefusalLog:
    """Writes refusals until there are too many of them.

    Parameters
    ----------
    clock
        Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._since = clock()
        self._lines: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def note(self, message: str, address: str, reason: str, **fields: object) -> bool:
        """Log one refusal, or count it; return whether it was logged.

        Parameters
        ----------
        message
            A constant.
        reason
            Why, in a sentence; AE titles and numbers may stand in it, nothing of a patient.
        """
        self.tick()
        with self._lock:
            written = self._lines.get(address, 0)
            if written >= _LINES_OF_ONE_ADDRESS or sum(self._lines.values()) >= _LINES_OF_ALL:
                known = (
                    address if address in self._left_out or len(self._left_out) < _LINES_OF_ALL else "others"
                )
                self._left_out[known] = self._left_out.get(known, 0) + 1
                return False
            self._lines[address] = written + 1
        log.warning(message, extra={"peer_address": address, "reason": reason, **fields})
        return True

    def tick(self) -> None:
        """Tell what was left out, once a window has passed."""
        with self._lock:
            if self._clock() - self._since < WINDOW:
                return
            left_out, self._left_out, self._lines = self._left_out, {}, {}
            self._since = self._clock()
        if left_out:
            log.warning(
                "refusals not logged one by one",
                extra={"count": sum(left_out.values()), "by_address": left_out, "seconds": WINDOW},
            )

    def close(self) -> None:
        """Tell what was left out until now."""
        with self._lock:
            self._since = self._clock() - WINDOW
        self.tick()
