"""What a person can see and do: studies, work items, banks. Rows come back ready to print or for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import BankError, DatabaseError
from dicom_node.pipeline import rerun, story
from dicom_node.queue import items
from dicom_node.score.bank_store import BankStore
from dicom_node.store import marks, overview
from dicom_node.store.marks import Mark
from dicom_node.store.selection import Wanted


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: moments as ISO 8601, enumerations as their value."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [plain(held) for held in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return value


def list_studies(engine: Engine, limit: int, wanted: Wanted | None = None) -> list[dict[str, Any]]:
    """Return one row a study, or of those that are meant, the one that an image came for last first."""
    with reading(engine) as conn:
        return [plain(asdict(study)) for study in overview.list_studies(conn, limit, wanted=wanted)]


def show_study(engine: Engine, study_instance_uid: str) -> dict[str, list[dict[str, Any]]]:
    """Return everything held of one study, by table, and first what it comes to (see `story`).

    Raises
    ------
    NotFoundError
        If no image of that study was ever received.
    """
    with reading(engine) as conn:
        held = overview.show_study(conn, study_instance_uid)
    told = {"history": story.history(held), "destinations": story.destinations(held)}
    tables = {name: rows for name, rows in asdict(held).items() if name != "study_instance_uid"}
    return {name: plain(rows) for name, rows in (told | tables).items()}


def retry(engine: Engine, item_id: int, now: datetime) -> rerun.Retried:
    """Schedule an item again (see `rerun.retry`)."""
    with writing(engine) as conn:
        return rerun.retry(conn, item_id, now)


def cancel(engine: Engine, item_id: int, now: datetime) -> None:
    """Cancel an item (see `queue.items.cancel`)."""
    with writing(engine) as conn:
        items.cancel(conn, item_id, now)


def list_banks(root: Path) -> list[dict[str, Any]]:
    """Return one row a bank, sorted by name; a damaged bank's row has "error" instead of its facts.

    Where the record of active banks is damaged none counts as active; see `active_fault`.
    """
    store = BankStore(root)
    active = () if active_fault(root) else store.active()
    rows: list[dict[str, Any]] = []
    for name in store.names():
        row: dict[str, Any] = {"name": name, "active": name in active}
        try:
            manifest = store.manifest(name)
        except BankError as error:
            rows.append({**row, "error": str(error)})
            continue
        rows.append(
            {
                **row,
                "hash": manifest.bank_hash,
                "normal_images": manifest.normal_images,
                "created_at": manifest.created_at,
                "population": manifest.population.description,
            }
        )
    return rows


def active_fault(root: Path) -> str:
    """Return why it cannot be told which banks are active, and what to do; "" where it can."""
    try:
        BankStore(root).active()
    except BankError as error:
        return str(error)
    return ""


def activate_banks(
    root: Path, names: Sequence[str], engine: Engine, clock: Callable[[], datetime]
) -> dict[str, str]:
    """Verify banks, make them the active ones in this order, record the event; return their hashes by name.

    Raises
    ------
    BankError
        If one is missing or a file is not what its hash says; the active banks stay.
    DatabaseError
        If the event could not be recorded; the banks are active all the same, which it says.
    """
    store = BankStore(root)
    before = store.activate(*names, at=clock())
    hashes = store.active_hashes()
    try:
        with writing(engine) as conn:
            for name, bank_hash in hashes.items():
                events.record(
                    conn, clock(), "bank.activated", name=name, bank_hash=bank_hash, before=list(before)
                )
    except DatabaseError as error:
        raise DatabaseError(
            f"{', '.join(hashes)} is what scores now, but no event of it could be recorded: {error}"
        ) from error
    return hashes


def mark(engine: Engine, study_instance_uid: str, word: Mark, by: str, now: datetime) -> None:
    """Note a person's word about a study (see `store.marks`)."""
    with writing(engine) as conn:
        marks.add(conn, study_instance_uid, word, by, now)
