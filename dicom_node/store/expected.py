"""Keeps what was said of studies that are due or arriving. Owns table `expected`; never commits.

Whoever says something (a worklist, a modality's procedure step, an archive) has a key of its own; what it says again
takes the place of what it said before. No patient attribute is here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert, storable
from dicom_node.db.schema import expected, instances, revisions
from dicom_node.domain.expectation import MOST_REFERENCES, Judgement, Notice, Procedure, Source, State, judge
from dicom_node.domain.urgency import ROUTINE

_PRIORITIES = ("ups", "mwl", "fetch")
_SPENT = ("ups", "fetch", "count")
_COUNTS = ("open", "complete", "arrived", "missed")


def put(
    conn: Connection,
    *,
    source: Source,
    key: str,
    study_instance_uid: str,
    at: datetime,
    priority: int = ROUTINE,
    state: State = "open",
    refs: Iterable[str] = (),
    until: datetime | None = None,
    procedure: Procedure | None = None,
    accession_hash: str = "",
    due_at: datetime | None = None,
) -> None:
    """Note what a source says of a study, in the place of what it said before under the same key.

    An entry whose study arrived stays as it is: who says so may have asked before.

    Parameters
    ----------
    study_instance_uid
        "" where it is not known yet.
    refs
        SOP Instance UIDs of the study's images; at most `MOST_REFERENCES` are kept, and then the notice is open.
    until
        When an open notice, or one whose images do not come, holds up nothing any more.
    """
    named = sorted(set(refs))
    if len(named) > MOST_REFERENCES:
        named, state = named[:MOST_REFERENCES], "open"
    row = {
        "study_instance_uid": study_instance_uid,
        "state": state,
        "priority": priority,
        "refs": named,
        "procedure": None if procedure is None else list(procedure),
        "accession_hash": accession_hash,
        "due_at": due_at,
        "until": until,
        "updated_at": at,
    }
    statement = insert(conn, expected).values(source=source, key=storable(key, 200), **row)
    conn.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "key"], set_=row, where=expected.c.state != "arrived"
        )
    )


def settle(conn: Connection, source: Source, key: str, state: State, at: datetime) -> bool:
    """Give what a source said another state; False if it said nothing under that key."""
    settled = conn.execute(
        update(expected)
        .where(expected.c.source == source, expected.c.key == storable(key, 200))
        .values(state=state, updated_at=at)
    )
    return settled.rowcount == 1


def notices(conn: Connection, study_instance_uid: str) -> tuple[Notice, ...]:
    """Return what is said of a study."""
    rows = conn.execute(select(expected).where(expected.c.study_instance_uid == study_instance_uid))
    return tuple(Notice(row.source, row.state, frozenset(row.refs), row.until) for row in rows)


def priority(conn: Connection, study_instance_uid: str) -> int:
    """Return the most urgent priority that anybody gives a study; ROUTINE where nobody does.

    What is fetched for an archive's sake gives a lower one only where no worklist says anything; who tells only of
    images (a modality, an archive) says nothing of priority.
    """
    rows = conn.execute(
        select(expected.c.source, expected.c.priority).where(
            expected.c.study_instance_uid == study_instance_uid,
            expected.c.source.in_(_PRIORITIES),
            expected.c.state.in_(_COUNTS),
        )
    ).all()
    asked = [row.priority for row in rows if row.source != "fetch"]
    return int(min(asked or [row.priority for row in rows], default=ROUTINE))


def verdict(conn: Connection, study_instance_uid: str, now: datetime) -> Judgement:
    """Return whether a study is complete, by what is said of it and what is here; see `domain.expectation.judge`."""
    said = notices(conn, study_instance_uid)
    if not said:
        return "wait"
    held = select(instances.c.sop_instance_uid).where(instances.c.study_instance_uid == study_instance_uid)
    return judge(said, set(conn.execute(held).scalars()), now)


def spend(conn: Connection, study_instance_uid: str, at: datetime) -> None:
    """Note that a revision was closed: what was asked for this once says nothing of those that follow."""
    conn.execute(
        update(expected)
        .where(
            expected.c.study_instance_uid == study_instance_uid,
            expected.c.source.in_(_SPENT),
            expected.c.state.in_(("open", "complete")),
        )
        .values(state="withdrawn", updated_at=at)
    )


def perhaps_complete(conn: Connection) -> list[tuple[str, int]]:
    """Return (study, number) of the open revisions of which somebody named all images."""
    rows = conn.execute(
        select(revisions.c.study_instance_uid, revisions.c.number)
        .join(expected, expected.c.study_instance_uid == revisions.c.study_instance_uid)
        .where(revisions.c.closed_at.is_(None), expected.c.state == "complete")
        .distinct()
    )
    return [(row.study_instance_uid, row.number) for row in rows]


def procedure(conn: Connection, study_instance_uid: str) -> Procedure | None:
    """Return what a worklist says was asked for, None where none does."""
    row = conn.execute(
        select(expected.c.procedure)
        .where(
            expected.c.study_instance_uid == study_instance_uid,
            expected.c.procedure.is_not(None),
            expected.c.state.in_(_COUNTS),
        )
        .order_by(expected.c.due_at, expected.c.key)
        .limit(1)
    ).scalar_one_or_none()
    return None if row is None else (str(row[0]), str(row[1]), str(row[2]))


_WAITS = ("open", "missed")


def arrived(conn: Connection, study_instance_uid: str, accession_hashes: Collection[str], at: datetime) -> int:
    """Note that a study is here: the entries of worklists that it answers, by its UID, else by accession number."""
    by_uid = expected.c.study_instance_uid == study_instance_uid
    waits = (expected.c.source == "mwl", expected.c.state.in_(_WAITS))
    values = {"state": "arrived", "updated_at": at}
    found = conn.execute(update(expected).where(*waits, by_uid).values(**values)).rowcount
    known = [one for one in accession_hashes if one]
    if not found and known:
        matching = expected.c.accession_hash.in_(known)
        values |= {"study_instance_uid": study_instance_uid}
        found = conn.execute(update(expected).where(*waits, matching).values(**values)).rowcount
    return found


def states(conn: Connection, prefix: str) -> dict[str, str]:
    """Return the state of each entry of one worklist, by its key."""
    rows = conn.execute(select(expected.c.key, expected.c.state).where(*_of_worklist(prefix)))
    return {row.key: row.state for row in rows}


def withdraw_others(
    conn: Connection, prefix: str, keys: Collection[str], due_after: datetime, at: datetime
) -> int:
    """Withdraw the entries of one worklist that wait, are due later, and are not on it any more; return how many."""
    rows = conn.execute(
        select(expected.c.key).where(
            *_of_worklist(prefix), expected.c.state == "open", expected.c.due_at >= due_after
        )
    ).scalars()
    gone = [key for key in rows if key not in keys]
    for key in gone:
        settle(conn, "mwl", key, "withdrawn", at)
    return len(gone)


def miss(conn: Connection, prefix: str, due_before: datetime, at: datetime) -> list[str]:
    """Mark the entries of a worklist whose study never came; return those studies, "" for an unknown one."""
    missed = conn.execute(
        update(expected)
        .where(*_of_worklist(prefix), expected.c.state == "open", expected.c.due_at < due_before)
        .values(state="missed", updated_at=at)
        .returning(expected.c.study_instance_uid)
    ).scalars()
    gone = list(missed)
    for study in gone:
        events.record(conn, at, "study.missed", study_instance_uid=study)
    return gone


def _of_worklist(prefix: str) -> tuple[ColumnElement[bool], ...]:
    return expected.c.source == "mwl", expected.c.key.startswith(prefix, autoescape=True)


def due(conn: Connection, limit: int | None = 500) -> tuple[Mapping[str, Any], ...]:
    """Return the last entries of worklists whose study is due or was missed, the oldest first; None for all."""
    rows = conn.execute(
        select(
            expected.c.key,
            expected.c.study_instance_uid,
            expected.c.due_at,
            expected.c.priority,
            expected.c.procedure,
            expected.c.state,
        )
        .where(expected.c.source == "mwl", expected.c.state.in_(_WAITS))
        .order_by(func.coalesce(expected.c.due_at, expected.c.updated_at).desc())
        .limit(limit)
    ).all()
    return tuple(
        {
            "worklist": row.key.partition(":")[0],
            "study_instance_uid": row.study_instance_uid,
            "due_at": row.due_at,
            "priority": row.priority,
            "procedure": row.procedure[2] if row.procedure else "",
            "state": "missed" if row.state == "missed" else "due",
        }
        for row in reversed(rows)
    )


def forget(conn: Connection, before: datetime) -> int:
    """Forget what was said so long ago that no study will answer it; return how many."""
    return conn.execute(delete(expected).where(expected.c.updated_at < before)).rowcount
