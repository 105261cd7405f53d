"""Keeps who may look, who is logged in, and what else lets in. Owns these three tables; never commits.

Of secrets it only ever sees hashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from dicom_node.db.dialect import insert
from dicom_node.db.schema import keys, people, sessions
from dicom_node.domain.people import Known, Person
from dicom_node.domain.reading import Role

VOUCHED = "-"
"""In the place of a hash: no passcode of this node's lets this person in."""


@dataclass(frozen=True, slots=True)
class Held:
    """A person, the passcode's hash, and that of whom an identity provider vouches for ("" for nobody)."""

    person: Person
    hashed: str = field(repr=False)
    subject: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class HeldSession:
    """A session's person, token for forms, and moments."""

    person: Person
    csrf: str = field(repr=False)
    started_at: datetime
    seen_at: datetime


def put(conn: Connection, name: str, role: Role, hashed: str | None, at: datetime, subject: str = "") -> bool:
    """Add a person, or change role and passcode (None keeps it); return whether the person is new.

    A change ends the person's sessions and links: the next login has the new rights. `subject` is that of a new one.
    """
    known = get(conn, name)
    if known is None:
        row = {"name": name, "role": role, "hashed": hashed or VOUCHED, "created_at": at, "changed_at": at}
        conn.execute(insert(conn, people).values(subject=subject, **row))
        return True
    if known.person.role is not role or hashed is not None:
        values = {"role": role, "changed_at": at} | ({} if hashed is None else {"hashed": hashed})
        conn.execute(update(people).where(people.c.name == name).values(**values))
        conn.execute(delete(sessions).where(sessions.c.name == name))
        revoke(conn, name, "link")
    return False


def remove(conn: Connection, name: str) -> bool:
    """Remove a person, sessions and keys; False if there is none."""
    for table in (sessions, keys):
        conn.execute(delete(table).where(table.c.name == name))
    return conn.execute(delete(people).where(people.c.name == name)).rowcount == 1


def get(conn: Connection, name: str) -> Held | None:
    """Return a person, None for an unknown one."""
    row = conn.execute(select(people).where(people.c.name == name)).one_or_none()
    return None if row is None else Held(Person(row.name, Role(row.role)), row.hashed, row.subject)


def listed(conn: Connection) -> tuple[Known, ...]:
    """Return everybody, by name."""
    of_session = select(sessions.c.name, func.count().label("n")).group_by(sessions.c.name).subquery()
    of_key = (
        select(keys.c.name, func.count().label("n"))
        .where(keys.c.kind == "token")
        .group_by(keys.c.name)
        .subquery()
    )
    rows = conn.execute(
        select(people, of_session.c.n.label("open"), of_key.c.n.label("tokens"))
        .outerjoin(of_session, of_session.c.name == people.c.name)
        .outerjoin(of_key, of_key.c.name == people.c.name)
        .order_by(people.c.name)
    )
    return tuple(
        Known(r.name, Role(r.role), r.hashed != VOUCHED, r.open or 0, r.tokens or 0, r.created_at) for r in rows
    )


def open_session(conn: Connection, token_hash: str, name: str, csrf: str, at: datetime) -> None:
    """Note that a person is logged in."""
    row = {"token_hash": token_hash, "name": name, "csrf": csrf, "started_at": at, "seen_at": at}
    conn.execute(insert(conn, sessions).values(**row))


def end_oldest(conn: Connection, name: str, most: int) -> None:
    """Forget all but a person's newest sessions."""
    newest = (
        select(sessions.c.token_hash)
        .where(sessions.c.name == name)
        .order_by(sessions.c.started_at.desc(), sessions.c.token_hash)
        .limit(most)
    )
    conn.execute(delete(sessions).where(sessions.c.name == name, sessions.c.token_hash.not_in(newest)))


def session(conn: Connection, token_hash: str) -> HeldSession | None:
    """Return a session, None for an unknown one; its person is as of now."""
    row = conn.execute(
        select(sessions, people.c.role)
        .join(people, people.c.name == sessions.c.name)
        .where(sessions.c.token_hash == token_hash)
    ).one_or_none()
    if row is None:
        return None
    return HeldSession(Person(row.name, Role(row.role)), row.csrf, row.started_at, row.seen_at)


def session_seen(conn: Connection, token_hash: str, at: datetime) -> None:
    """Note a session's sign of life."""
    conn.execute(update(sessions).where(sessions.c.token_hash == token_hash).values(seen_at=at))


def end_session(conn: Connection, token_hash: str) -> None:
    """Forget a session."""
    conn.execute(delete(sessions).where(sessions.c.token_hash == token_hash))


def forget_old(conn: Connection, started_before: datetime, seen_before: datetime, now: datetime) -> int:
    """Forget sessions and keys whose time is over; return how many."""
    old = conn.execute(
        delete(sessions).where((sessions.c.started_at < started_before) | (sessions.c.seen_at < seen_before))
    ).rowcount
    return old + conn.execute(delete(keys).where(keys.c.expires_at < now)).rowcount


def end_everything(conn: Connection) -> None:
    """Forget every session and key, of everybody."""
    conn.execute(delete(sessions))
    conn.execute(delete(keys))


def put_key(
    conn: Connection, token_hash: str, name: str, kind: str, at: datetime, expires_at: datetime | None
) -> None:
    """Note a key of a person."""
    row = {"token_hash": token_hash, "name": name, "kind": kind, "created_at": at, "expires_at": expires_at}
    conn.execute(insert(conn, keys).values(**row))


def key_owner(conn: Connection, token_hash: str, kind: str, now: datetime) -> Person | None:
    """Return whom a key lets in, None for an unknown one or one whose time is over."""
    row = conn.execute(
        select(people.c.name, people.c.role)
        .join(keys, keys.c.name == people.c.name)
        .where(
            keys.c.token_hash == token_hash,
            keys.c.kind == kind,
            keys.c.expires_at.is_(None) | (keys.c.expires_at >= now),
        )
    ).one_or_none()
    return None if row is None else Person(row.name, Role(row.role))


def take_key(conn: Connection, token_hash: str) -> bool:
    """Forget a key; False if it is gone already."""
    return conn.execute(delete(keys).where(keys.c.token_hash == token_hash)).rowcount == 1


def revoke(conn: Connection, name: str, kind: str) -> int:
    """Forget all keys of a kind of a person; return how many."""
    return conn.execute(delete(keys).where(keys.c.name == name, keys.c.kind == kind)).rowcount
