"""The tables of people: who may look at the reading worklist, who is logged in, what else lets in."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table

from dicom_node.db.columns import metadata
from dicom_node.db.columns import moment as _moment

people = Table(
    "people",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("hashed", String(256), nullable=False),
    Column("subject", String(64), nullable=False, default="", server_default=""),
    _moment("created_at"),
    _moment("changed_at"),
)
"""Who may look at the reading worklist. `hashed` is the passcode's argon2id hash, "-" for none.
`subject` is the SHA-256 of whom an identity provider vouches for, "" for a person of this node's own.
"""

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("csrf", String(64), nullable=False),
    _moment("started_at"),
    _moment("seen_at"),
    Index(None, "name"),
)
"""Who is logged in. Of a session's token only the SHA-256 is kept."""

keys = Table(
    "keys",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    _moment("created_at"),
    _moment("expires_at", nullable=True),
    Index(None, "name"),
)
"""What lets in without a passcode: "token" for programs, "link" for one login. Only the SHA-256 is kept."""

login_failures = Table(
    "login_failures",
    metadata,
    Column("who", String(80), primary_key=True),
    Column("failures", Integer, nullable=False),
    _moment("last_at"),
)
"""Who failed to log in within the last hour: "address …" or "name …" with a short hash of it."""
