"""The table of procedure steps of other providers that this node performs."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, String, Table, Text, UniqueConstraint, false

from dicom_node.db.columns import ID, metadata, moment, text, uid

tasks = Table(
    "tasks",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("source", String(64), nullable=False),
    uid("sop_instance_uid"),
    uid("transaction_uid"),
    Column("state", String(16), nullable=False),
    text("study_instance_uid", 64),
    Column("revision", Integer, nullable=True),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("cancel_requested", Boolean, nullable=False, default=False, server_default=false()),
    text("discontinued", 16),
    Column("reason", Text, nullable=False, default="", server_default=""),
    moment("due_at"),
    Column("lease_token", String(36), nullable=True),
    moment("lease_until", nullable=True),
    moment("started_at", nullable=True),
    moment("created_at"),
    moment("updated_at"),
    UniqueConstraint("source", "sop_instance_uid"),
    Index(None, "source", "state", "due_at"),
    Index(None, "study_instance_uid"),
)
"""This node's part in steps of other providers, by their SOP Instance UID. `state` is one of `domain.performing`.

The Transaction UID is committed before it is sent. `revision` is the study's whose report answers; `discontinued` is
the code of why the step is canceled. A row under work carries a lease that ends.
"""
