"""The deep check: every file read, every row held against it, every loose end found. Safe while the node runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Engine

from dicom_node.db import integrity
from dicom_node.db.engine import reading
from dicom_node.domain.errors import NodeError
from dicom_node.pipeline.sweep import STALE
from dicom_node.store import shelves, step_stocktaking, stocktaking
from dicom_node.store.faults import NEEDS_A_PERSON, Code, Fault
from dicom_node.store.files import FileStore
from dicom_node.store.loose_ends import loose_ends
from dicom_node.store.stocktaking import Amount

log = logging.getLogger(__name__)

GROWN_UP = timedelta(minutes=2)
"""Age at which a file without a row is an orphan: its row is committed much sooner, or never."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A fault, and what was done about it; `done` is "" without repair, `mended` says whether it is gone."""

    fault: Fault
    done: str = ""
    mended: bool = False


def amount(engine: Engine) -> Amount:
    """Return how much there is to look at."""
    with reading(engine) as conn:
        return stocktaking.amount(conn)


def look(
    engine: Engine,
    files: FileStore,
    clock: Callable[[], datetime],
    repair: Callable[[Fault], str] | None = None,
    looked_at: Callable[[int], None] = lambda _size: None,
) -> Iterator[Seen]:
    """Look at everything and yield each fault as it is found, mended where `repair` is given and can.

    Parameters
    ----------
    repair
        Mends one fault, see `repair.Repair`.
    looked_at
        Told the size of each data set that was read, for a display of progress.

    Raises
    ------
    DatabaseError, StoreError
        If one of them cannot be read at all.
    """
    for fault in _faults(engine, files, clock, looked_at):
        if repair is None or fault.code in NEEDS_A_PERSON:
            yield Seen(fault)
            continue
        try:
            done = repair(fault)
        except NodeError as error:
            yield Seen(fault, f"not mended: {error}")
        else:
            log.warning("mended", extra={"fault": fault.code.value, "what": fault.what, "done": done})
            yield Seen(fault, done, mended=True)


def _faults(
    engine: Engine, files: FileStore, clock: Callable[[], datetime], looked_at: Callable[[int], None]
) -> Iterator[Fault]:
    with reading(engine) as conn:
        wrong = integrity.faults(conn)
    yield from (Fault(Code.DATABASE, "the database", told) for told in wrong)
    yield from shelves.strangers(files, clock() - STALE)
    opened = partial(reading, engine)
    # Reports first: one that is lost can only be made again from images.
    yield from stocktaking.report_faults(opened, files, clock() - GROWN_UP)
    yield from stocktaking.image_faults(opened, files, clock() - GROWN_UP, looked_at)
    yield from step_stocktaking.step_faults(opened, files, clock() - GROWN_UP)
    with reading(engine) as conn:
        ends = list(loose_ends(conn))
    yield from ends
