"""A scoring process as its parent holds it: started, spoken to, ended. Decides nothing about whose fault it was."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence

from dicom_node.domain.explanation import Explanation
from dicom_node.score.child_log import ChildLog
from dicom_node.score.wire import Answer, Garbled, Request, Setup, answer, explanation, receive, send

_LAST_SECONDS = 10.0
"""For a process that has nothing left to do to end by itself."""


class ChildProcess:
    """The child, its pipes and its log.

    Attributes
    ----------
    fault
        None until it is ready; then why it has no bank, or "".

    Raises
    ------
    OSError
        If the system cannot start it.
    """

    def __init__(self, command: Sequence[str], monotonic: Callable[[], float]) -> None:
        self._popen = subprocess.Popen(  # noqa: S603 - our own module
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,  # Ctrl-C is for the parent, which ends the child when its work is done
        )
        if self._popen.stdin is None or self._popen.stdout is None or self._popen.stderr is None:
            raise OSError("no pipes")  # what Popen never does when asked for them
        self._requests, self._answers = self._popen.stdin, self._popen.stdout
        self._errors = self._popen.stderr
        self._monotonic = monotonic
        self.log = ChildLog(self._errors)
        self.fault: str | None = None

    @property
    def id(self) -> int:
        """Return its process id."""
        return self._popen.pid

    def ask(self, message: Setup | Request) -> None:
        """Send one message; raises Gone."""
        send(self._requests.fileno(), message)

    def next(self, seconds: float) -> Answer:
        """Return its next answer; raises Gone, Garbled and TimeoutError."""
        return answer(receive(self._answers.fileno(), seconds, self._monotonic))

    def explanation(self, seconds: float) -> Explanation | str:
        """Return what follows a result that explains, or why there is none; raises as `next`."""
        until = self._monotonic() + seconds
        said = self.next(seconds)
        if said.kind != "explanation":
            raise Garbled
        if said.explanation is None:
            return said.reason
        mask, rgb, layer = (
            receive(self._answers.fileno(), max(0.0, until - self._monotonic()), self._monotonic)
            for _ in range(3)
        )
        return explanation(said.explanation, mask, rgb, layer)

    def ended(self) -> str:
        """Return how it ended; if it has not, it is killed."""
        try:
            code = self._popen.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            code = self._popen.wait()
        self._release()
        if code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        return f"signal {-code}, {name}"

    def kill(self) -> None:
        """End it at once."""
        self._popen.kill()
        self._popen.wait()
        self._release()

    def close(self) -> None:
        """Let it end by itself, which it does when it has nothing to do and its input ends."""
        self._requests.close()
        self.ended()

    def _release(self) -> None:
        self.log.join()
        for pipe in (self._requests, self._answers, self._errors):
            pipe.close()
