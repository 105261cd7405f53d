"""Whether a destination has confirmed what it was sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what a delivery was sent as and how it was confirmed, and the table of commitment requests."""
    for name, length in (("sent_as", 64), ("confirmed", 16)):
        op.add_column("deliveries", sa.Column(name, sa.String(length=length), server_default="", nullable=False))
    op.add_column("deliveries", sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "commitments",
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.String(length=64), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure_reason", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid", name=op.f("pk_commitments")),
    )
    op.create_index(
        op.f("ix_commitments_sop_instance_uid_destination"),
        "commitments",
        ["sop_instance_uid", "destination"],
        unique=False,
    )
