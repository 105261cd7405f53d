"""What the scoring process writes to standard error, taken into this process's log.

Its own lines are JSON and are logged here as if logged here. Whatever else comes out of it, such as the
words of a decoder, may quote an image: nothing of it is logged but the frames of a crash.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from datetime import datetime
from typing import IO

log = logging.getLogger(__name__)

_LONGEST_LINE = 65536
_MOST_LINES = 20
_FRAME = re.compile(rb'  File "([^"]{1,200})", line (\d+) in ([\w<>.]{1,80})')
_OUT_OF_MEMORY = (b"std::bad_alloc", b"MemoryError")
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "at", "level", "logger", "taskName"}


class ChildLog:
    """Reads the pipe in a thread of its own until it ends.

    Attributes
    ----------
    images_seen
        Whether the process has worked on an image. Before, no word of it can quote one, and each is logged:
        they say why an installation is broken.
    out_of_memory
        Whether a library said, as its last words, that it could not allocate.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self.images_seen = False
        self.out_of_memory = False
        self._frames: list[str] = []
        self._said = 0
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read, name="scoring-log", daemon=True)
        self._thread.start()

    @property
    def frames(self) -> str:
        """Return where in the program the process crashed, innermost first, as far as it told."""
        return "; ".join(self._frames)

    def join(self) -> None:
        """Wait until everything is read that the process wrote."""
        self._thread.join(5.0)

    def _read(self) -> None:
        while line := self._pipe.readline(_LONGEST_LINE):
            if not _log_again(line):
                self._foreign(line)

    def _foreign(self, line: bytes) -> None:
        self.out_of_memory = self.out_of_memory or any(word in line for word in _OUT_OF_MEMORY)
        frame = _FRAME.match(line)
        if frame is not None and len(self._frames) < _MOST_LINES:
            file, number, function = (part.decode("utf-8", "replace") for part in frame.groups())
            self._frames.append(f"{file}:{number} in {function}")
        elif not self.images_seen and self._said < _MOST_LINES:
            self._said += 1
            log.warning(
                "the scoring process says", extra={"line": line.decode("utf-8", "replace").rstrip()[:500]}
            )


def _log_again(line: bytes) -> bool:
    """Log a line of the child's own log; return False if it is none."""
    try:
        fields = json.loads(line)
        logger = logging.getLogger(fields["logger"])
        level = logging.getLevelNamesMapping()[fields["level"]]
        created = datetime.fromisoformat(fields["at"]).timestamp()
        message = fields["message"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    if logger.isEnabledFor(level):
        record = logging.makeLogRecord({k: v for k, v in fields.items() if k not in _OWN})
        record.name, record.levelno, record.levelname = logger.name, level, fields["level"]
        record.created, record.msg = created, str(message)
        logger.handle(record)
    return True
