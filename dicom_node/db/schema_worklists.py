"""The tables of what is expected, by worklists, procedure steps and archives, and of what is fetched from these."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Index, Integer, String, Table, Text, UniqueConstraint

from dicom_node.db.columns import ID, metadata, moment, text, uid

expected = Table(
    "expected",
    metadata,
    Column("source", String(8), primary_key=True),
    Column("key", String(200), primary_key=True),
    uid("study_instance_uid"),
    Column("state", String(12), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("refs", JSON, nullable=False),
    Column("procedure", JSON(none_as_null=True), nullable=True),
    text("accession_hash", 64),
    moment("due_at", nullable=True),
    moment("until", nullable=True),
    moment("updated_at"),
    Index(None, "study_instance_uid"),
    Index(None, "accession_hash"),
    Index(None, "updated_at"),
)
"""What somebody said of a study: `source` is "ups", "mwl", "mpps", "ian", "count" or "fetch", `key` is unique in it.

`state`: "open", more may come, until `until`; "complete", `refs` is all there is; "arrived" and "missed" are those of a
worklist's entry; "withdrawn". `accession_hash` is a keyed hash: the number itself is nowhere.
"""

retrievals = Table(
    "retrievals",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("archive", String(64), nullable=False),
    uid("study_instance_uid"),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    moment("due_at"),
    Column("lease_token", String(36), nullable=True),
    moment("lease_until", nullable=True),
    Column("stored", Integer, nullable=False, default=0, server_default="0"),
    Column("failed", Integer, nullable=False, default=0, server_default="0"),
    Column("expected", Integer, nullable=True),
    Column("reason", Text, nullable=False, default="", server_default=""),
    moment("created_at"),
    moment("updated_at"),
    UniqueConstraint("archive", "study_instance_uid"),
    Index(None, "archive", "state", "due_at"),
    Index(None, "archive", "updated_at"),
)
"""Studies that are fetched from archives in bulk. `state` is "due", "fetching" (under a lease that ends), "fetched",
"skipped" (answered here already), "failed", or "canceled"; the counts are of images.
"""
