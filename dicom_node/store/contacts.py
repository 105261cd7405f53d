"""What archives and worklists gave lately, and what went wrong with them last: for people who look at the node.

All of it is known already: nobody is asked, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, func, or_, select

from dicom_node.db.schema import expected, retrievals, tasks
from dicom_node.domain.performing import FINAL, TaskState
from dicom_node.store.retrievals import DUE, FAILED, FETCHED, FETCHING


@dataclass(frozen=True, slots=True)
class Contact:
    """When a peer last did what it was asked, how much is still to be done with it, and its last error."""

    last_at: datetime | None = None
    waiting: int = 0
    failed: int = 0
    error: str = ""
    error_at: datetime | None = None


def archives(conn: Connection) -> dict[str, Contact]:
    """Return what is known of archives by the studies that were fetched from them in bulk, by name."""
    table = retrievals.c
    return _contacts(
        conn,
        retrievals,
        table.archive,
        good=table.state == FETCHED,
        waiting=table.state.in_((DUE, FETCHING)),
        failed=table.state == FAILED,
    )


def ups_sources(conn: Connection) -> dict[str, Contact]:
    """Return what is known of providers of procedure steps by this node's tasks, by name."""
    table = tasks.c
    none = table.id < 0
    return _contacts(
        conn,
        tasks,
        table.source,
        good=or_(table.reason == "", table.state == TaskState.COMPLETED),
        waiting=table.state.not_in(FINAL),
        failed=none,
    )


def modality_worklists(conn: Connection, names: Collection[str]) -> dict[str, Contact]:
    """Return when entries of these worklists were last heard of, how many are open, and how many never came."""
    found = {}
    for name in names:
        table = expected.c
        row = conn.execute(
            select(
                func.max(table.updated_at).label("last_at"),
                func.count().filter(table.state == "open").label("waiting"),
                func.count().filter(table.state == "missed").label("failed"),
            ).where(table.source == "mwl", table.key.startswith(f"{name}:", autoescape=True))
        ).one()
        found[name] = Contact(row.last_at, row.waiting, row.failed)
    return found


def _contacts(
    conn: Connection,
    table: Table,
    peer: ColumnElement[str],
    *,
    good: ColumnElement[bool],
    waiting: ColumnElement[bool],
    failed: ColumnElement[bool],
) -> dict[str, Contact]:
    counted = select(
        peer.label("peer"),
        func.max(table.c.updated_at).filter(good).label("last_at"),
        func.count().filter(waiting).label("waiting"),
        func.count().filter(failed).label("failed"),
    ).group_by(peer)
    wrong = table.c.reason != ""
    newest = select(peer.label("peer"), func.max(table.c.updated_at).label("at")).where(wrong).group_by(peer)
    latest = newest.subquery()
    errors = select(latest.c.peer, latest.c.at, table.c.reason).join(
        table, and_(peer == latest.c.peer, table.c.updated_at == latest.c.at, wrong)
    )
    last = {row.peer: row for row in conn.execute(errors)}
    return {
        row.peer: Contact(
            row.last_at,
            row.waiting,
            row.failed,
            last[row.peer].reason if row.peer in last else "",
            last[row.peer].at if row.peer in last else None,
        )
        for row in conn.execute(counted)
    }
