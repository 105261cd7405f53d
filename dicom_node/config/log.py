"""The log of the program."""

from __future__ import annotations

from typing import Literal

from dicom_node.config.values import Section


class Log(Section):
    """The program's own log, on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["text", "json"] = "text"
