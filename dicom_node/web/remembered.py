"""What one session needs from a request to the next and must not stand in an address: a search's term, an answer.

In memory, bounded, and gone with the process; it belongs to the session that left it there.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

_MOST = 2_000


class Remembered:
    """Texts under names that nobody can guess. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[str, str], str] = OrderedDict()

    def keep(self, owner: str, text: str) -> str:
        """Keep a text for an owner; return its name."""
        name = secrets.token_urlsafe(12)
        with self._lock:
            self._texts[owner, name] = text
            while len(self._texts) > _MOST:
                self._texts.popitem(last=False)
        return name

    def look(self, owner: str, name: str) -> str:
        """Return a text; "" where there is none of that owner and name."""
        with self._lock:
            return self._texts.get((owner, name), "")

    def take(self, owner: str, name: str) -> str:
        """Return a text and forget it."""
        with self._lock:
            return self._texts.pop((owner, name), "")
