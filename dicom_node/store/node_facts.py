"""Keeps facts about this node itself that must outlive a process. Owns the table `node`."""

from __future__ import annotations

from sqlalchemy import Connection, select

from dicom_node.db import schema
from dicom_node.db.dialect import insert


def node_value(conn: Connection, key: str, default: str) -> str:
    """Return the value kept under `key`; where there is none, `default` becomes it for all time.

    Processes that ask at the same moment get the same answer.
    """
    conn.execute(insert(conn, schema.node).values(key=key, value=default).on_conflict_do_nothing())
    return str(conn.execute(select(schema.node.c.value).where(schema.node.c.key == key)).scalar_one())


def alone(conn: Connection, key: str) -> None:
    """Let no other transaction that asks for the same come further than this until the present one ends."""
    node_value(conn, key, "")
    conn.execute(select(schema.node.c.value).where(schema.node.c.key == key).with_for_update())
