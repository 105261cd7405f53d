"""Appends to the history. Owns one insert; the caller's transaction decides whether it happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from dicom_node.db import schema


def record(
    conn: Connection,
    at: datetime,
    kind: str,
    *,
    study_instance_uid: str = "",
    work_item_id: int | None = None,
    **detail: Any,
) -> None:
    """Append one event. `kind` is a constant such as "instance.stored"; `detail` holds no patient attribute."""
    conn.execute(
        insert(schema.events).values(
            at=at, kind=kind, study_instance_uid=study_instance_uid, work_item_id=work_item_id, detail=detail
        )
    )
