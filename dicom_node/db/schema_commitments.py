"""The tables of storage commitment: what destinations were asked for, and what peers ask of this node."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, String, Table

from dicom_node.db.columns import metadata
from dicom_node.db.columns import moment as _moment
from dicom_node.db.columns import text as _text
from dicom_node.db.columns import uid as _uid

commitments = Table(
    "commitments",
    metadata,
    _uid("transaction_uid", primary_key=True),
    _uid("sop_instance_uid"),
    Column("destination", String(64), nullable=False),
    _moment("asked_at"),
    _moment("answered_at", nullable=True),
    Column("failure_reason", Integer, nullable=True),
    Index(None, "sop_instance_uid", "destination"),
)
"""Storage commitment that was asked of destinations. Answered without a failure reason means committed."""

commitment_requests = Table(
    "commitment_requests",
    metadata,
    Column("calling_ae_title", String(16), primary_key=True),
    _uid("transaction_uid", primary_key=True),
    _text("peer_address", 64),
    Column("refs", JSON, nullable=False),
    _moment("asked_at"),
    _moment("due_at"),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Index(None, "due_at"),
)
"""Storage commitment that peers ask of this node, until they have its report. `refs`: [SOP class, SOP instance] each.

`due_at` is when the report is sent on an association that this node opens, `attempts` how often that was tried.
"""
