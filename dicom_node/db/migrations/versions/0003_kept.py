"""What became of each file: kept, going, gone, lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `kept` to instances and reports: every file held before is kept."""
    for table in ("instances", "reports"):
        op.add_column(table, sa.Column("kept", sa.String(length=8), server_default="yes", nullable=False))
        op.create_index(op.f(f"ix_{table}_digest"), table, ["digest"], unique=False)
        op.create_index(
            f"ix_{table}_going",
            table,
            ["id"],
            unique=False,
            sqlite_where=sa.text("kept = 'going'"),
            postgresql_where=sa.text("kept = 'going'"),
        )
