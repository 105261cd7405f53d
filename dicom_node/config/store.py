"""Where files and rows are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from dicom_node.config.values import Section


class Store(Section):
    """Where received bytes and reports are kept, and for how long; 0 is for ever."""

    root: Path = Path("var/store")
    reserve_megabytes: Annotated[int, Field(ge=0)] = 512
    retention_days: Annotated[int, Field(ge=0, le=36500)] = 0
    retention_megabytes: Annotated[int, Field(ge=0)] = 0
    report_retention_days: Annotated[int, Field(ge=0, le=36500)] = 0


class Db(Section):
    """The database. `password_file` holds the password of a PostgreSQL URL that has none."""

    url: Annotated[str, Field(repr=False)] = "sqlite:///var/node.db"  # it may hold a password
    password_file: Path | None = None
