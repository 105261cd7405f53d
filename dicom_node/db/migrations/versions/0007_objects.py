"""Display objects beside the reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of display objects."""
    op.create_table(
        "objects",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("report_sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kept", sa.String(length=8), server_default="yes", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objects")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_objects_sop_instance_uid")),
    )
    for column in ("study_instance_uid", "report_sop_instance_uid", "digest"):
        op.create_index(op.f(f"ix_objects_{column}"), "objects", [column], unique=False)
    op.create_index(
        "ix_objects_going",
        "objects",
        ["id"],
        unique=False,
        sqlite_where=sa.text("kept = 'going'"),
        postgresql_where=sa.text("kept = 'going'"),
    )
