"""Keeps account of associations and of the revisions of a study. Owns both tables; never commits.

A revision is open while images may still be on their way. Closing and adding meet at the revision's row: each
changes it under a condition, so an image is in a revision before it closes or opens the next one, never lost.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, exists, func, literal, null, select, update

from dicom_node.db import events
from dicom_node.db.dialect import insert, storable
from dicom_node.db.moment import UtcDateTime
from dicom_node.db.schema import associations, instances, revisions
from dicom_node.domain.errors import DatabaseError, NotFoundError
from dicom_node.domain.expectation import Procedure

_ATTEMPTS = 20


def association_opened(
    conn: Connection,
    association_id: str,
    calling_ae_title: str,
    called_ae_title: str,
    peer_address: str,
    at: datetime,
) -> None:
    """Note that an association is about to store its first object; a second call is as `association_seen`."""
    statement = insert(conn, associations).values(
        id=association_id,
        calling_ae_title=storable(calling_ae_title, 16),
        called_ae_title=storable(called_ae_title, 16),
        peer_address=storable(peer_address, 64),
        opened_at=at,
        last_seen_at=at,
    )
    seen = statement.excluded.last_seen_at
    later = case((seen > associations.c.last_seen_at, seen), else_=associations.c.last_seen_at)
    conn.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"last_seen_at": later}))


def association_seen(
    conn: Connection,
    association_id: str,
    at: datetime,
    *,
    calling_ae_title: str = "",
    called_ae_title: str = "",
    peer_address: str = "",
) -> None:
    """Note that an association gave a sign of life. One that was not announced is opened by it."""
    association_opened(conn, association_id, calling_ae_title, called_ae_title, peer_address, at)


def association_ended(conn: Connection, association_id: str, how: str, at: datetime) -> bool:
    """Note the end of an association ("released" or "aborted"); False if it is unknown or has ended before.

    One that never stored anything is unknown, and stays so.
    """
    ended = conn.execute(
        update(associations)
        .where(associations.c.id == association_id, associations.c.released_at.is_(None))
        .values(released_at=at, ended_as=storable(how, 16))
    )
    return ended.rowcount == 1


def open_revision(conn: Connection, study_instance_uid: str, at: datetime) -> int:
    """Return the number of the study's open revision, opening the first or the next where none is open.

    From here to the end of the transaction nobody else closes it.

    Parameters
    ----------
    conn
        An open transaction.
    study_instance_uid
        Of the study that an image has come for.
    at
        When it came; `last_received_at` moves there, never back.
    """
    of_study = revisions.c.study_instance_uid == study_instance_uid
    touched = (
        update(revisions)
        .where(of_study, revisions.c.closed_at.is_(None))
        .values(
            last_received_at=case(
                (revisions.c.last_received_at < at, literal(at, UtcDateTime())),
                else_=revisions.c.last_received_at,
            )
        )
        .returning(revisions.c.number)
    )
    opened = (
        insert(conn, revisions)
        .from_select(
            ["study_instance_uid", "number", "opened_at", "last_received_at", "closed_at"],
            select(
                literal(study_instance_uid),
                func.coalesce(func.max(revisions.c.number), 0) + 1,
                literal(at, UtcDateTime()),
                literal(at, UtcDateTime()),
                null(),
            ).where(of_study),
        )
        .on_conflict_do_nothing()
        .returning(revisions.c.number)
    )
    # On PostgreSQL another transaction may open or close one between the two statements: then look again.
    for _ in range(_ATTEMPTS):
        number = conn.execute(touched).scalar_one_or_none()
        if number is not None:
            return int(number)
        number = conn.execute(opened).scalar_one_or_none()
        if number is not None:
            events.record(
                conn, at, "revision.opened", study_instance_uid=study_instance_uid, revision=int(number)
            )
            return int(number)
    raise DatabaseError(
        f"no revision of study {study_instance_uid} could be opened in {_ATTEMPTS} attempts; "
        "the database must run at READ COMMITTED"
    )


def came_again(conn: Connection, study_instance_uid: str, at: datetime) -> None:
    """Note that an image of a closed revision is here again: how long the study is kept counts from now on."""
    of_study = revisions.c.study_instance_uid == study_instance_uid
    closed = select(func.max(revisions.c.number)).where(of_study, revisions.c.closed_at.is_not(None))
    conn.execute(
        update(revisions)
        .where(of_study, revisions.c.number == closed.scalar_subquery(), revisions.c.last_received_at < at)
        .values(last_received_at=at)
    )


def has_images(conn: Connection, study_instance_uid: str, number: int) -> bool:
    """Return whether an image came for this very revision."""
    held = select(instances.c.id).where(
        instances.c.study_instance_uid == study_instance_uid, instances.c.revision == number
    )
    return conn.execute(held.limit(1)).first() is not None


def latest_revision(conn: Connection, study_instance_uid: str) -> int | None:
    """Return the highest revision number of a study, open or closed; None for an unknown study."""
    number = conn.execute(
        select(func.max(revisions.c.number)).where(revisions.c.study_instance_uid == study_instance_uid)
    ).scalar_one()
    return None if number is None else int(number)


def quiet(
    conn: Connection, now: datetime, quiet_seconds: float, open_association_seconds: float
) -> list[tuple[str, int]]:
    """Return (study, number) of every open revision that nothing more seems to come for, oldest first.

    That is: its last image came `quiet_seconds` ago or earlier, and no association that stored into it is
    still open. An association without an end counts as dead when `open_association_seconds` have passed since
    its last sign of life, because the process that would have noted its end may have been killed.
    """
    sending = exists().where(
        instances.c.study_instance_uid == revisions.c.study_instance_uid,
        instances.c.revision == revisions.c.number,
        associations.c.id == instances.c.association_id,
        associations.c.released_at.is_(None),
        associations.c.last_seen_at >= now - timedelta(seconds=open_association_seconds),
    )
    rows = conn.execute(
        select(revisions.c.study_instance_uid, revisions.c.number)
        .where(
            revisions.c.closed_at.is_(None),
            revisions.c.last_received_at <= now - timedelta(seconds=quiet_seconds),
            ~sending,
        )
        .order_by(revisions.c.last_received_at, revisions.c.study_instance_uid)
    )
    return [(row.study_instance_uid, row.number) for row in rows]


def close_revision(
    conn: Connection,
    study_instance_uid: str,
    number: int,
    at: datetime,
    quiet_seconds: float = 0.0,
    procedure: Procedure | None = None,
) -> bool:
    """Close a revision if it is still open and its last image came `quiet_seconds` before `at` or earlier.

    `procedure` is what was asked for, as far as it is known now: a report says so, and stays the same for ever.

    False, and nothing is changed, if an image came since `quiet` was asked or someone else closed it.
    """
    closed = conn.execute(
        update(revisions)
        .where(
            _is(study_instance_uid, number),
            revisions.c.closed_at.is_(None),
            revisions.c.last_received_at <= at - timedelta(seconds=quiet_seconds),
        )
        .values(closed_at=at, procedure=None if procedure is None else list(procedure))
    )
    if closed.rowcount != 1:
        return False
    events.record(conn, at, "revision.closed", study_instance_uid=study_instance_uid, revision=number)
    return True


def last_came_before(conn: Connection, moment: datetime) -> list[tuple[str, int]]:
    """Return (study, number) of the open revisions whose last image came before a moment."""
    rows = conn.execute(
        select(revisions.c.study_instance_uid, revisions.c.number).where(
            revisions.c.closed_at.is_(None), revisions.c.last_received_at <= moment
        )
    )
    return [(row.study_instance_uid, row.number) for row in rows]


def procedure_of(conn: Connection, study_instance_uid: str, number: int) -> Procedure | None:
    """Return what a worklist said was asked for when a revision was closed, None where none did."""
    found = conn.execute(
        select(revisions.c.procedure).where(_is(study_instance_uid, number))
    ).scalar_one_or_none()
    return None if found is None else (str(found[0]), str(found[1]), str(found[2]))


def set_back(conn: Connection, now: datetime, tolerance_seconds: float) -> int:
    """Put right the open revisions and associations last heard of in what is now the future; return how many.

    The clock went back: they count as heard of just now. Machines may be `tolerance_seconds` apart.
    """
    future = now + timedelta(seconds=tolerance_seconds)
    heard = update(revisions).where(revisions.c.closed_at.is_(None), revisions.c.last_received_at > future)
    seen = update(associations).where(
        associations.c.released_at.is_(None), associations.c.last_seen_at > future
    )
    changed = conn.execute(heard.values(last_received_at=now)).rowcount
    return changed + conn.execute(seen.values(last_seen_at=now)).rowcount


def revision_closed_at(conn: Connection, study_instance_uid: str, number: int) -> datetime | None:
    """Return when a revision was closed; None while it is open.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    row = conn.execute(select(revisions.c.closed_at).where(_is(study_instance_uid, number))).one_or_none()
    if row is None:
        raise NotFoundError(f"study {study_instance_uid} has no revision {number} here")
    closed_at: datetime | None = row.closed_at
    return closed_at


def _is(study_instance_uid: str, number: int) -> ColumnElement[bool]:
    return and_(revisions.c.study_instance_uid == study_instance_uid, revisions.c.number == number)
