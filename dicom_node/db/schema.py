"""The tables. Owns their shape; what may be done with the rows is for `store` and `queue` to say.

Every moment is stored in UTC and comes back timezone-aware. No patient attribute has a column.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware moment; refuses naive ones instead of guessing their zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Convert to UTC on the way in."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: the database takes timezone-aware moments only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Restore the zone that SQLite does not keep."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = BigInteger().with_variant(Integer, "sqlite")


def _uid(name: str, **kwargs: Any) -> Column[str]:
    return Column(name, String(64), nullable=False, **kwargs)


def _text(name: str, length: int) -> Column[str]:
    return Column(name, String(length), nullable=False, default="", server_default="")


def _moment(name: str, *, nullable: bool = False) -> Column[datetime]:
    return Column(name, UtcDateTime(), nullable=nullable)


node = Table(
    "node",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about this node itself that must outlive a process, such as its device UID."""

associations = Table(
    "associations",
    metadata,
    Column("id", String(36), primary_key=True),
    _text("calling_ae_title", 16),
    _text("called_ae_title", 16),
    _text("peer_address", 64),
    _moment("opened_at"),
    _moment("last_seen_at"),
    _moment("released_at", nullable=True),
    _text("ended_as", 16),
)
"""Associations that stored something. `ended_as` is "" while open, then "released" or "aborted"."""

revisions = Table(
    "revisions",
    metadata,
    _uid("study_instance_uid", primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    _moment("opened_at"),
    _moment("last_received_at"),
    _moment("closed_at", nullable=True),
)
"""The n-th complete state of a study, n from 1. At most one revision of a study is open (closed_at null)."""
Index(
    "uq_revisions_one_open",
    revisions.c.study_instance_uid,
    unique=True,
    sqlite_where=revisions.c.closed_at.is_(None),
    postgresql_where=revisions.c.closed_at.is_(None),
)

instances = Table(
    "instances",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("sop_instance_uid"),
    _uid("sop_class_uid"),
    _uid("series_instance_uid"),
    _uid("study_instance_uid"),
    _uid("transfer_syntax_uid"),
    Column("digest", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("conflict", Boolean, nullable=False),
    Column("association_id", String(36), nullable=False),
    _text("calling_ae_title", 16),
    _moment("received_at"),
    UniqueConstraint("sop_instance_uid", "digest"),
    ForeignKeyConstraint(
        ["study_instance_uid", "revision"], ["revisions.study_instance_uid", "revisions.number"]
    ),
    Index(None, "study_instance_uid", "revision"),
    Index(None, "association_id"),
)
"""Images held. A revision consists of the study's rows with `revision` <= its number and `conflict` false.

`conflict` marks bytes that came under a SOP Instance UID already held with other bytes: kept apart, not scored.
"""
Index(
    "uq_instances_one_without_conflict",
    instances.c.sop_instance_uid,
    unique=True,
    sqlite_where=instances.c.conflict.is_(False),
    postgresql_where=instances.c.conflict.is_(False),
)

work_items = Table(
    "work_items",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    _uid("study_instance_uid"),
    Column("revision", Integer, nullable=False),
    _text("destination", 64),
    Column("priority", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    _moment("available_at"),
    Column("lease_token", String(36), nullable=True),
    _text("lease_owner", 128),
    _moment("lease_until", nullable=True),
    Column("reason", Text, nullable=False, default="", server_default=""),
    _moment("created_at"),
    _moment("updated_at"),
    UniqueConstraint("kind", "study_instance_uid", "revision", "destination"),
    Index(None, "state", "kind", "priority", "available_at"),
)
"""What is to be done. A smaller `priority` goes first (5 is routine)."""

reports = Table(
    "reports",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("study_instance_uid"),
    Column("revision", Integer, nullable=False),
    _text("bank_hash", 64),
    _uid("sop_instance_uid", unique=True),
    _uid("sop_class_uid"),
    _uid("series_instance_uid"),
    Column("digest", String(64), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("result", JSON, nullable=False),
    _moment("created_at"),
    UniqueConstraint("study_instance_uid", "revision", "bank_hash"),
)
"""Reports made. `bank_hash` is "" where no bank was used; `result` is the StudyResult without patient data."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("sop_instance_uid"),
    Column("destination", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    _text("comment", 256),
    _moment("sent_at"),
    UniqueConstraint("sop_instance_uid", "destination"),
)
"""Objects that a destination said it stored (success or warning status)."""

marks = Table(
    "marks",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("study_instance_uid"),
    Column("mark", String(16), nullable=False),
    _text("said_by", 64),
    _moment("at"),
    Index(None, "study_instance_uid"),
)
"""What people said of a study, append-only: "normal", "abnormal" or "clear"; a study's latest row counts."""

events = Table(
    "events",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _moment("at"),
    Column("kind", String(64), nullable=False),
    _text("study_instance_uid", 64),
    Column("work_item_id", _ID, nullable=True),
    Column("detail", JSON, nullable=False),
    Index(None, "study_instance_uid"),
    Index(None, "at"),
)
"""Append-only history, written in the transaction of the change it tells of."""
