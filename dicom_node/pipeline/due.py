"""Follows worklists of scheduled procedures: what is due, what arrived, what never came."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from sqlalchemy import Engine

from dicom_node.config import ModalityWorklist
from dicom_node.db.engine import reading, writing
from dicom_node.domain.scheduled import ScheduledProcedure
from dicom_node.pipeline.arriving import accession_hash
from dicom_node.store import expected, instances

log = logging.getLogger(__name__)

_KEPT = timedelta(days=60)


class Ask(Protocol):
    """Returns what a worklist has scheduled now."""

    def __call__(self, section: ModalityWorklist) -> Sequence[ScheduledProcedure]:
        """Raise DestinationAwayError or DestinationRefusedError."""


def follow(engine: Engine, section: ModalityWorklist, ask: Ask, key: str, clock: Callable[[], datetime]) -> int:
    """Ask one worklist and note what it says; return how many procedures are scheduled.

    What it does not list any more, and did not arrive, is withdrawn: it was canceled, or done elsewhere.

    Parameters
    ----------
    key
        Of the hashes of accession numbers.

    Raises
    ------
    DestinationAwayError, DestinationRefusedError
        If it cannot be asked.
    """
    listed = ask(section)
    now = clock()
    prefix = f"{section.name}:"
    # Hashed, as accession numbers are: the identifiers of a request are a patient's (PS3.15 table E.1-1).
    named = {prefix + accession_hash(key, one.key): one for one in listed}
    missed_before = now - timedelta(hours=section.missed_after_hours)
    with reading(engine) as conn:
        known = expected.states(conn, prefix)
        here = {
            one.study_instance_uid
            for one in listed
            if one.study_instance_uid and instances.any_held(conn, one.study_instance_uid)
        }
    with writing(engine) as conn:
        for name, one in named.items():
            put_off = one.due_at is None or one.due_at >= missed_before
            missed_already = known.get(name) == "missed" and not put_off
            expected.put(
                conn,
                source="mwl",
                key=name,
                study_instance_uid=one.study_instance_uid,
                at=now,
                priority=one.priority,
                state="arrived" if one.study_instance_uid in here else "missed" if missed_already else "open",
                procedure=one.procedure,
                accession_hash=accession_hash(key, one.accession_number),
                due_at=one.due_at,
            )
        # Only of the days that were asked for: what was due before is missed, not withdrawn.
        expected.withdraw_others(conn, prefix, named, now - timedelta(days=section.days_back), now)
        missed = expected.miss(conn, prefix, missed_before, now)
    for study in missed:
        log.warning(
            "a scheduled study never came",
            extra={"worklist": section.name, "study_instance_uid": study},
        )
    return len(listed)


def listed(engine: Engine) -> list[dict[str, object]]:
    """Return the scheduled studies that are due or were missed, the oldest first, as values for JSON."""
    with reading(engine) as conn:
        rows = expected.due(conn, None)
    return [{**row, "due_at": row["due_at"] and row["due_at"].isoformat(timespec="seconds")} for row in rows]


def forget(engine: Engine, clock: Callable[[], datetime]) -> int:
    """Forget what was said so long ago that no study answers it any more; return how much."""
    with writing(engine) as conn:
        return expected.forget(conn, clock() - _KEPT)
