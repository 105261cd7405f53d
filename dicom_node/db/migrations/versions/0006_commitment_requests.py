"""What peers ask this node to commit itself to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of commitment requests that are not reported on yet."""
    op.create_table(
        "commitment_requests",
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("transaction_uid", sa.String(length=64), nullable=False),
        sa.Column("peer_address", sa.String(length=64), server_default="", nullable=False),
        sa.Column("refs", sa.JSON(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("calling_ae_title", "transaction_uid", name=op.f("pk_commitment_requests")),
    )
    op.create_index(op.f("ix_commitment_requests_due_at"), "commitment_requests", ["due_at"], unique=False)
