"""The tables of the procedure steps that this node offers, who watches them, and what these are owed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, String, Table, Text, false, true

from dicom_node.db.columns import ID, metadata, moment, text, uid

procedure_steps = Table(
    "procedure_steps",
    metadata,
    uid("sop_instance_uid", primary_key=True),
    uid("study_instance_uid"),
    Column("work_item_id", BigInteger, nullable=True),
    Column("generation", Integer, nullable=False),
    Column("current", Boolean, nullable=False, default=True, server_default=true()),
    Column("revision", Integer, nullable=True),
    Column("state", String(16), nullable=False),
    Column("priority", Integer, nullable=False),
    text("digest", 64),
    text("asked_by", 16),
    text("archive", 64),
    moment("fetch_at", nullable=True),
    Column("assigned", Boolean, nullable=False, default=False, server_default=false()),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("reason", Text, nullable=False, default="", server_default=""),
    moment("created_at"),
    moment("started_at", nullable=True),
    moment("ended_at", nullable=True),
    moment("updated_at"),
    Index(None, "work_item_id"),
    Index(None, "state", "created_at"),
    Index(None, "study_instance_uid"),
    Index(None, "fetch_at"),
)
"""Unified Procedure Steps. A step that was asked for has no `work_item_id` until its study is here to be analysed.

`digest` finds the data set that its creator sent, a file: the patient stands there alone. `current` is false for a step
that ended before its work item was scheduled again. `fetch_at` is when its images are fetched from `archive`.
`assigned` is true once subscribers were told who is to perform it.
"""

step_subscriptions = Table(
    "step_subscriptions",
    metadata,
    Column("ae_title", String(16), primary_key=True),
    uid("sop_instance_uid", primary_key=True),
    text("peer_address", 64),
    text("filter_digest", 64),
    Column("wanted", Boolean, nullable=False, default=True, server_default=true()),
    Column("lock", Boolean, nullable=False, default=False, server_default=false()),
    moment("created_at"),
    moment("until", nullable=True),
    Index(None, "sop_instance_uid"),
)
"""Who watches which step, or all by a well-known UID. `wanted` is false for one step that a subscriber to all left out.

`filter_digest` finds the matching keys of a filtered subscription, a file: they may name a patient. `until` is when a
subscription to all was suspended: steps made later are not watched.
"""

step_events = Table(
    "step_events",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("ae_title", String(16), nullable=False),
    text("peer_address", 64),
    uid("sop_instance_uid"),
    Column("kind", Integer, nullable=False, default=1, server_default="1"),
    Column("state", String(16), nullable=False),
    Column("ready", Boolean, nullable=False),
    Column("reason", Text, nullable=False, default="", server_default=""),
    Column("progress", Integer, nullable=False, default=0, server_default="0"),
    text("requesting_ae", 16),
    text("digest", 64),
    text("filter_digest", 64),
    moment("at"),
    moment("due_at"),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Index(None, "due_at"),
    Index(None, "ae_title"),
)
"""Events that subscribers are owed, until they took them. `kind` is the event type of PS3.4 table CC.2.4-1.

`digest` finds what a request to cancel said, a file; `filter_digest` the keys that the step must match to be told of.
"""
