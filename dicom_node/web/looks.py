"""Tells the audit trail who looks at what, once an hour: a live list that is left open fetches itself again and again.

Each first look of a session at a study or a list is told, and a further one when the last that was told is an hour old.
Which were told is known in this process only; another one tells them again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import Request

from dicom_node.web.access import address_of, by

AGAIN_SECONDS = 3600.0
_MOST = 50_000


class Looks:
    """Knows which looks were told lately. Safe to share between threads.

    Parameters
    ----------
    clock
        Seconds that never go back.
    most
        Looks that are known at most; one that was forgotten is told again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._told: OrderedDict[tuple[str, ...], float] = OrderedDict()
        self._lock = threading.Lock()

    def due(self, *look: str) -> bool:
        """Return whether a look is to be told now; then it counts as told."""
        now = self._clock()
        with self._lock:
            told = self._told.get(look)
            if told is not None and now - told < AGAIN_SECONDS:
                return False
            self._told[look] = now
            self._told.move_to_end(look)
            while len(self._told) > self._most:
                self._told.popitem(last=False)
            return True


def looked(request: Request, who: str, study_instance_uid: str = "", asked: str = "") -> None:
    """Note that a person sees a study, or, without one, a list.

    Parameters
    ----------
    asked
        Tells one list from another, such as one search from the next. It is not written down.
    """
    state = request.app.state
    if not hasattr(state, "looks"):
        state.looks = Looks()
    session = getattr(request.state, "session", None)
    address = address_of(request)
    if state.looks.due(who, "" if session is None else session.csrf, address, study_instance_uid, asked):
        if study_instance_uid:
            state.desk.looked_at(study_instance_uid, by(request, who))
        else:
            state.desk.listed(by(request, who))
