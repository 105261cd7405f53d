"""The life of banks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from dicom_node.config.values import Section


def _cron(value: str) -> str:
    if not value:
        return value
    from apscheduler.triggers.cron import CronTrigger

    try:
        CronTrigger.from_crontab(value, timezone="UTC")
    except ValueError as error:
        raise ValueError(
            f"{value!r} is no cron expression of five fields, such as '0 3 * * sun' ({error})"
        ) from None
    if any(character.isdigit() for character in value.split()[4].partition("#")[0]):
        # cron counts weekdays from Sunday, APScheduler from Monday: a number would mean another day to many.
        raise ValueError(f"{value!r} numbers the days of the week; name them, such as sun or mon-fri")
    return value


class BankSchedule(Section):
    """When the active bank is rebuilt by itself, and from what. `rebuild` is "marked-normal", a folder or a CSV."""

    cron: Annotated[str, AfterValidator(_cron)] = ""
    rebuild: Annotated[str, Field(min_length=1)] = "marked-normal"
    labelled: Path | None = None


class BankSection(Section):
    """The life of banks."""

    schedule: BankSchedule = BankSchedule()
