"""What is due, and what senders said of a study's completeness."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of what is expected, and the procedure that a revision answers."""
    op.create_table(
        "expected",
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("refs", sa.JSON(), nullable=False),
        sa.Column("procedure", sa.JSON(), nullable=True),
        sa.Column("accession_hash", sa.String(length=64), server_default="", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "key", name=op.f("pk_expected")),
    )
    for column in ("study_instance_uid", "accession_hash", "updated_at"):
        op.create_index(op.f(f"ix_expected_{column}"), "expected", [column], unique=False)
    op.add_column("revisions", sa.Column("procedure", sa.JSON(), nullable=True))
