"""Keeps the audit trail: events become lines of the trail's file, and lines are sent on to a syslog server.

Owns the rule that a trail which cannot be kept never stops the node. A line is in the file before anything is sent, and
the file is what a server that is away catches up from.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from dicom_node.domain.audit import AssociationOpened, AuditEvent
from dicom_node.domain.errors import NodeError
from dicom_node.observe.audit_file import AuditFile, Forwarded, Position
from dicom_node.observe.audit_message import AuditSource, message
from dicom_node.observe.audit_syslog import frame

log = logging.getLogger(__name__)

_HELD_IN_MEMORY = 10_000
_FIRST_WAIT, _LONGEST_WAIT, _POLL = 1.0, 300.0, 1.0
_BATCH = 200


class Trail:
    """The `domain.audit.Audit` that keeps what it is told.

    Parameters
    ----------
    file
        Where lines go.
    source
        Who reports.
    accepted
        Whether associations that were accepted are told of, not only those rejected.
    patient_of
        Returns the Patient ID of a study for its messages; by default there is none in them.
    """

    def __init__(
        self,
        file: AuditFile,
        source: AuditSource,
        *,
        accepted: bool = True,
        patient_of: Callable[[str], str] = lambda _study: "",
    ) -> None:
        self.file = file
        self._source = source
        self._accepted = accepted
        self._patient_of = patient_of
        self._waiting: deque[bytes] = deque(maxlen=_HELD_IN_MEMORY)
        self._failing = False
        self._one = threading.Lock()

    def __call__(self, event: AuditEvent) -> None:
        """Keep an event. Where the file cannot be written, it is held in memory and written with a later one."""
        if isinstance(event, AssociationOpened) and not self._accepted:
            return
        told = message(event, self._source, self._patient(event))
        with self._one:
            self._waiting.append(json.dumps(told, ensure_ascii=False).encode("utf-8"))
            self._write()

    def _patient(self, event: AuditEvent) -> str:
        study = getattr(event, "study_instance_uid", "")
        try:
            return self._patient_of(study) if study else ""
        except NodeError as error:
            log.warning("an audit message goes without its Patient ID", extra={"reason": type(error).__name__})
            return ""

    def _write(self) -> None:
        try:
            while self._waiting:
                self.file.append(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not self._failing:
                reason = f"{self.file.path}: {error.strerror or error}"
                log.error("the audit trail cannot be written, the node goes on", extra={"reason": reason})  # noqa: TRY400 - the reason says it all
            self._failing = True
        else:
            if self._failing:
                log.warning("the audit trail is written again")
            self._failing = False


class Forwarder:
    """Sends the trail's lines on, in order, each at least once; waits ever longer while the server is away.

    Parameters
    ----------
    send
        Sends one message; raises OSError if it cannot.
    clock
        Returns the current moment, timezone-aware.
    """

    def __init__(
        self, file: AuditFile, send: Callable[[Mapping[str, Any]], None], clock: Callable[[], datetime]
    ) -> None:
        self._file = file
        self._send = send
        self._clock = clock
        self._failures = 0

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set, then once more what has come by then."""
        while not stop.is_set():
            stop.wait(self.step())
        if not self._failures:
            self.step()

    def step(self) -> float:
        """Send what has not been sent; return how long to wait, in seconds, before the next step.

        Where another process sends already, nothing is done.
        """
        try:
            with self._file.sole_forwarder() as mine:
                return self._forward() if mine else _POLL
        except OSError as error:
            log.warning("how far the audit trail was sent cannot be noted", extra={"reason": str(error)})
            return _LONGEST_WAIT

    def _forward(self) -> float:
        before = self._file.forwarded()
        reached, fault, sent = before.position, "", 0
        try:
            for line, position in islice(self._file.lines(before.position), _BATCH):
                if (told := _parsed(line)) is not None:
                    self._send(told)
                reached, sent = position, sent + 1
        except OSError as error:
            fault = str(error.strerror or error)
        self._note(before, reached, fault)
        if not fault:
            self._failures = 0
            return 0.0 if sent == _BATCH else _POLL
        self._failures += 1
        return min(_FIRST_WAIT * 2.0 ** min(self._failures - 1, 10), _LONGEST_WAIT)

    def _note(self, before: Forwarded, reached: Position, fault: str) -> None:
        if fault and not before.fault:
            log.warning("the audit trail cannot be sent on and is kept until it can", extra={"reason": fault})
        elif before.fault and not fault:
            log.warning("the audit trail is sent on again")
        since = (before.since or self._clock().isoformat(timespec="seconds")) if fault else ""
        after = Forwarded(reached, fault, since)
        if after != before:
            self._file.note_forwarded(after)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return a line's message; None for one that a loss of power or a person has damaged."""
    try:
        told = json.loads(line)
        frame(told, "", 0)
    except (ValueError, KeyError, TypeError, AttributeError):
        log.warning("a line of the audit trail is damaged and is not sent on")
        return None
    return dict(told)
