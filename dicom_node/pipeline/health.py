"""What can be seen of the node at a glance: queue, disk, and how long the oldest work has waited."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from dicom_node.db.engine import reading
from dicom_node.queue import items


@dataclass(frozen=True, slots=True)
class Health:
    """Work items by (kind, state), free bytes of the store, and seconds that the oldest due item has waited."""

    counts: Mapping[tuple[str, str], int]
    free_bytes: int
    oldest_due_seconds: float | None


def snapshot(engine: Engine, root: Path, now: datetime) -> Health:
    """Return the node's health as of now."""
    with reading(engine) as conn:
        counts = items.counts(conn)
        oldest = items.oldest_due(conn, now)
    age = None if oldest is None else (now - oldest).total_seconds()
    return Health(counts, shutil.disk_usage(root).free, age)
