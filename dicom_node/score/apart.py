"""The worker's side of its scoring process: starts it, asks it, watches it, ends it.

Whatever an image does to its decoder ends that process and no other: a crash, a hang, a bomb. Owns who is to
blame: the image, if the process fails while it works on one; the machine, if it cannot even be started. Reads no
data set and never loads torch.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import JsonValue

from dicom_node.config import ScoreSection, Work
from dicom_node.domain.errors import BankError, PoisonError, ScorerAwayError, StoreError
from dicom_node.domain.examined import Examined
from dicom_node.domain.explanation import Explanation
from dicom_node.observe.context import current
from dicom_node.score.child_process import ChildProcess
from dicom_node.score.wire import Garbled, Gone, Request, Setup

log = logging.getLogger(__name__)

START_SECONDS = 600.0
"""To load torch and banks of any size, also when other banks are activated."""

_LONGEST_BACKOFF = 60.0


class Apart:
    """One scoring process. For one thread at a time.

    Parameters
    ----------
    command
        Starts it.
    score
        What it scores with.
    limits
        Seconds and memory of one image.
    level
        Of its log.
    """

    def __init__(
        self,
        command: Sequence[str],
        score: ScoreSection,
        limits: Work,
        level: str = "INFO",
        start_seconds: float = START_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._command = tuple(command)
        self._score = score
        self._limits = limits
        self._level = level
        self._start_seconds = start_seconds
        self._monotonic = monotonic
        self._process: ChildProcess | None = None
        self._failures = 0
        self._not_before = 0.0
        self._why = ""

    @property
    def process_id(self) -> int | None:
        """Return the id of the process, or None where there is none."""
        return None if self._process is None else self._process.id

    def start(self) -> None:
        """Start the process without waiting for it.

        Raises
        ------
        ScorerAwayError
            If the system cannot start it, or it could not a moment ago: it is not tried all the time.
        """
        self._started()

    def warm_up(self) -> str:
        """Wait until the process can score; return why it has no bank, or "".

        Raises
        ------
        ScorerAwayError
            If it cannot be started.
        """
        return self._ready().fault or ""

    def analyse(self, path: Path, bank: str = "") -> Examined:
        """Score one stored file or say why not.

        Parameters
        ----------
        bank
            Name of the bank to score with; "" leaves it to those that are active.

        Returns
        -------
        Examined
            The result's UIDs are what the data set claims, "" where it cannot be read. The explanation is None where
            it was not asked for or could not be told: whatever goes wrong with it costs nothing else.

        Raises
        ------
        PoisonError
            If the image ended its process, took too long, or needed too much memory.
        ScorerAwayError
            If there is no process to do it.
        BankError, StoreError
            If an active bank or the file cannot be used.
        """
        process = self._begin(Request(path=str(path), bank=bank, fields=_bound_fields()))
        seconds = self._limits.image_seconds
        too_much = f"needed more than {self._limits.image_memory_megabytes} MB of memory"
        try:
            answered = process.next(seconds)
        except TimeoutError:
            raise self._poisoned(f"took longer than {seconds:g} s") from None
        except Gone:
            how = process.ended()
            raise self._poisoned(
                too_much if process.log.out_of_memory else f"ended its process ({how})"
            ) from None
        except Garbled:
            raise self._poisoned("made its process answer nonsense") from None
        if answered.kind == "memory":
            raise self._poisoned(too_much)
        if answered.kind == "bank":
            raise BankError(answered.reason)
        if answered.kind == "store":
            raise StoreError(answered.reason)
        if answered.result is None:
            raise self._poisoned("made its process answer nonsense")
        return Examined(answered.result, self._explanation(process) if answered.explains else None)

    def _explanation(self, process: ChildProcess) -> Explanation | None:
        try:
            told = process.explanation(self._limits.image_seconds)
        except TimeoutError:
            told = f"took longer than {self._limits.image_seconds:g} s"
            self._replace(told)
        except Gone:
            told = f"ended its process ({process.ended()})"
            self._replace(told)
        except Garbled:
            told = "made its process answer nonsense"
            self._replace(told)
        if isinstance(told, Explanation):
            return told
        log.warning("an image is scored and not explained", extra={"reason": told})
        return None

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _started(self) -> ChildProcess:
        if self._process is not None:
            return self._process
        if self._failures and self._monotonic() < self._not_before:
            raise ScorerAwayError(self._why)
        megabytes = self._limits.image_memory_megabytes
        setup = Setup(score=self._score, megabytes=megabytes, level=self._level, parent=os.getpid())
        try:
            self._process = ChildProcess(self._command, self._monotonic)
            self._process.ask(setup)
        except OSError as error:
            raise self._start_failed(error.strerror or "") from error
        except Gone:
            raise self._start_failed() from None
        return self._process

    def _ready(self) -> ChildProcess:
        process = self._started()
        if process.fault is None:
            try:
                process.fault = process.next(self._start_seconds).reason
            except TimeoutError:
                process.kill()
                raise self._start_failed(f"not ready after {self._start_seconds:g} s") from None
            except (Gone, Garbled):
                raise self._start_failed() from None
            self._failures = 0
        return process

    def _begin(self, request: Request) -> ChildProcess:
        """Hand over a request. A process that died while it had nothing to do is no image's fault."""
        for _ in range(2):
            process = self._ready()
            process.log.out_of_memory = False
            try:
                process.ask(request)
                if process.next(self._start_seconds).kind == "begun":
                    process.log.images_seen = True
                    return process
            except (Gone, Garbled, TimeoutError):
                log.warning("a scoring process ended between two images", extra={"how": process.ended()})
            else:
                process.kill()
            self._process = None
        raise self._start_failed("it ends before it begins with an image")

    def _poisoned(self, what: str) -> PoisonError:
        """Replace the process and return the error."""
        self._replace(what)
        return PoisonError(f"decoding this image {what}")

    def _replace(self, what: str) -> None:
        """End the process and start the next, which is warm by the time it is needed."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            log.warning(
                "an image cost its scoring process", extra={"reason": what, "where": process.log.frames}
            )
        try:
            self.start()
        except ScorerAwayError:
            log.warning("the next scoring process is started when it is needed")

    def _start_failed(self, how: str = "") -> ScorerAwayError:
        process, self._process = self._process, None
        if process is not None:
            how = how or process.ended()
            process.kill()
        self._failures += 1
        wait = min(_LONGEST_BACKOFF, 2.0 ** min(self._failures, 10))
        self._not_before = self._monotonic() + wait
        self._why = f"the scoring process cannot be started ({how}); the log says more"
        log.error("a scoring process did not start", extra={"how": how, "next_in_seconds": wait})
        return ScorerAwayError(self._why)


def _bound_fields() -> dict[str, JsonValue]:
    fields = current().items()
    return {key: value if isinstance(value, str | int | float) else str(value) for key, value in fields}
