"""Procedure steps: locks, filtered and suspended subscriptions, all kinds of events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default="", nullable=False)


def upgrade() -> None:
    """Add what the tables of steps lacked; rows that are there stay as they are."""
    op.add_column(
        "procedure_steps", sa.Column("assigned", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("step_subscriptions", sa.Column("until", sa.DateTime(timezone=True), nullable=True))
    for column in (
        sa.Column("kind", sa.Integer(), server_default="1", nullable=False),
        sa.Column("progress", sa.Integer(), server_default="0", nullable=False),
        _text("requesting_ae", 16),
        _text("digest", 64),
        _text("filter_digest", 64),
    ):
        op.add_column("step_events", column)
