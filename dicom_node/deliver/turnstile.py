"""Who reads an association's messages: its reactor, or the thread that waits for an answer. Never both.

pynetdicom 3.0 holds a requestor's reactor back by an event and a flag. Where one message is sent right after another,
the flag may still be up while the reactor, woken in between, is already on its way to read: it takes the answer,
and the sender waits in vain. Seen on a busy machine.
"""

from __future__ import annotations

import threading

from pynetdicom.association import Association


class Turnstile:
    """In the place of an association's checkpoint: lets the reactor pass, or says truly that it stands still."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._changed = threading.Condition()
        self._open = True
        self._waits = False

    def set(self) -> None:
        """Let the reactor pass."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let it pass no more; the flag goes up once it waits here."""
        with self._changed:
            self._open = False
            if not self._association._kill:  # noqa: SLF001 - one that has ended comes here no more
                self._association._is_paused = self._waits  # noqa: SLF001

    def wait(self) -> None:
        """Wait, as the reactor, until it may pass."""
        with self._changed:
            while not self._open:
                self._waits = self._association._is_paused = True  # noqa: SLF001
                self._changed.wait()
            self._waits = False


def install(association: Association) -> None:
    """Have an association that was just accepted pass through a turnstile."""
    association._reactor_checkpoint = Turnstile(association)  # type: ignore[assignment]  # noqa: SLF001
