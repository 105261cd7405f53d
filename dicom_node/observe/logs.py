"""The program's log: stdlib logging, constant messages, fields in ``extra``; JSON in production.

No patient attribute is ever a field; libraries that might print a data set are kept at WARNING.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from dicom_node.observe import context

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_INDISCREET = ("pydicom", "pynetdicom")
_QUIET = ("faiss", "apscheduler", "alembic", "sqlalchemy", "highdicom", "PIL")


def _discreet(record: logging.LogRecord) -> bool:
    """Keep out libraries that may quote element values; a level would not do, their import sets it anew."""
    return record.name.partition(".")[0] not in _INDISCREET


class _Bind(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        for key, value in context.current().items():
            record.__dict__.setdefault(key, value)
        return True


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("_")}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, logger, message, the record's fields, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Time, level, message, then ``field=value`` pairs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line for people."""
        at = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = " ".join(f"{k}={v}" for k, v in _fields(record).items())
        line = f"{at} {record.levelname:<7} {record.getMessage()}" + (f"  {fields}" if fields else "")
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def set_up(level: str, form: Literal["text", "json"]) -> None:
    """Send the log of this process to standard error in the given form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(_Bind())
    handler.addFilter(_discreet)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("py.warnings").setLevel(logging.ERROR)
