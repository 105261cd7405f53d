"""The tables. Owns their shape; what may be done with the rows is for `store` and `queue` to say.

Every moment is stored in UTC and comes back timezone-aware. No patient attribute has a column.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from dicom_node.db.columns import ID as _ID
from dicom_node.db.columns import kept as _kept
from dicom_node.db.columns import metadata as metadata
from dicom_node.db.columns import moment as _moment
from dicom_node.db.columns import text as _text
from dicom_node.db.columns import uid as _uid
from dicom_node.db.schema_commitments import commitment_requests as commitment_requests
from dicom_node.db.schema_commitments import commitments as commitments
from dicom_node.db.schema_people import keys as keys
from dicom_node.db.schema_people import login_failures as login_failures
from dicom_node.db.schema_people import people as people
from dicom_node.db.schema_people import sessions as sessions
from dicom_node.db.schema_steps import procedure_steps as procedure_steps
from dicom_node.db.schema_steps import step_events as step_events
from dicom_node.db.schema_steps import step_subscriptions as step_subscriptions
from dicom_node.db.schema_tasks import tasks as tasks
from dicom_node.db.schema_worklists import expected as expected
from dicom_node.db.schema_worklists import retrievals as retrievals


def _going(table: Table) -> ColumnElement[bool]:
    return table.c.kept == "going"


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
    Column("procedure", JSON(none_as_null=True), nullable=True),
)
"""The n-th complete state of a study, n from 1. At most one revision of a study is open (closed_at null).

`procedure` is what a worklist said was asked for: code value, scheme, meaning.
"""
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
    _kept(),
    UniqueConstraint("sop_instance_uid", "digest"),
    ForeignKeyConstraint(
        ["study_instance_uid", "revision"], ["revisions.study_instance_uid", "revisions.number"]
    ),
    Index(None, "study_instance_uid", "revision"),
    Index(None, "association_id"),
    Index(None, "digest"),
    Index("ix_instances_listed", "study_instance_uid", "received_at", "calling_ae_title", "sop_class_uid"),
)
"""Images held. A revision consists of the study's rows with `revision` <= its number and `conflict` false.

`conflict` marks bytes that came under a SOP Instance UID already held with other bytes: kept apart, not scored.
`kept` says what became of the file: "yes"; "going", its time is over and it is about to be removed; "gone", it was
removed; "lost", it was damaged or missing.
"""
Index("ix_instances_going", instances.c.id, sqlite_where=_going(instances), postgresql_where=_going(instances))
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
    _text("bank", 64),
    UniqueConstraint("kind", "study_instance_uid", "revision", "destination"),
    Index("ix_work_items_by_turn", "state", "priority", "available_at", "id"),
    Index("ix_work_items_by_wait", "state", "available_at", "id"),
)
"""What is to be done. A smaller `priority` goes first (5 is routine). `bank` is the one that a person named, or ""."""

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
    _kept(),
    Column("percentile", Float, nullable=True),
    Column("z_score", Float, nullable=True),
    UniqueConstraint("study_instance_uid", "revision", "bank_hash"),
    Index(None, "digest"),
    Index("ix_reports_listed", "study_instance_uid", "revision", "id", "verdict", "percentile", "z_score"),
)
"""Reports made. `bank_hash` is "" where no bank was used; `result` is the StudyResult without patient data.

`kept` is as for instances. `percentile` and `z_score` are those of the image that decides, by which lists are ordered.
"""
Index("ix_reports_going", reports.c.id, sqlite_where=_going(reports), postgresql_where=_going(reports))

objects = Table(
    "objects",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("study_instance_uid"),
    Column("revision", Integer, nullable=False),
    _uid("report_sop_instance_uid"),
    Column("kind", String(24), nullable=False),
    _uid("sop_instance_uid", unique=True),
    _uid("sop_class_uid"),
    _uid("series_instance_uid"),
    Column("digest", String(64), nullable=False),
    _moment("created_at"),
    _kept(),
    Index(None, "study_instance_uid"),
    Index(None, "report_sop_instance_uid"),
    Index(None, "digest"),
)
"""Display objects made beside a report, such as "secondary-capture". `kept` is as for instances."""
Index("ix_objects_going", objects.c.id, sqlite_where=_going(objects), postgresql_where=_going(objects))

heat_maps = Table(
    "heat_maps",
    metadata,
    _uid("sop_instance_uid", primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    _uid("study_instance_uid", index=True),
    Column("png", LargeBinary, nullable=False),
    _moment("created_at"),
)
"""Where images lay far from normal when they were scored, as pictures to lay over them; gone with the images."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    _uid("sop_instance_uid"),
    Column("destination", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    _text("comment", 256),
    _moment("sent_at"),
    _text("sent_as", 64),
    _text("confirmed", 16),
    _moment("confirmed_at", nullable=True),
    UniqueConstraint("sop_instance_uid", "destination"),
)
"""Reports and display objects that a destination said it stored (success or warning status).

`sop_instance_uid` is the object's own, `sent_as` the SOP Class that a report was sent as. `confirmed` is "" while
that is open, then "committed", "found" or "unconfirmed".
"""

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
