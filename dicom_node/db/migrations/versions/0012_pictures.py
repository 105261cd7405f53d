"""Pictures for people beside images and reports; by what the reading worklist is ordered and searched."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add heat maps, and what the reading worklist is ordered by."""
    _heat_maps()
    _reading_worklist()


def _heat_maps() -> None:
    op.create_table(
        "heat_maps",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("png", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sop_instance_uid", "revision", name=op.f("pk_heat_maps")),
    )
    op.create_index(op.f("ix_heat_maps_study_instance_uid"), "heat_maps", ["study_instance_uid"], unique=False)


def _reading_worklist() -> None:
    """Add percentile and z-score of the image that decides, fill them in, and index what a list reads."""
    op.add_column("reports", sa.Column("percentile", sa.Float(), nullable=True))
    op.add_column("reports", sa.Column("z_score", sa.Float(), nullable=True))
    conn = op.get_bind()
    reports = sa.table(
        "reports",
        sa.column("id", sa.BigInteger()),
        sa.column("result", sa.JSON()),
        sa.column("percentile", sa.Float()),
        sa.column("z_score", sa.Float()),
    )
    last = 0
    while rows := conn.execute(
        sa.select(reports.c.id, reports.c.result).where(reports.c.id > last).order_by(reports.c.id).limit(500)
    ).all():
        for row in rows:
            if (score := _decisive(row.result)) is not None:
                conn.execute(
                    sa.update(reports)
                    .where(reports.c.id == row.id)
                    .values(percentile=score.get("percentile"), z_score=score.get("z_score"))
                )
        last = rows[-1].id
    op.create_index(
        "ix_reports_listed",
        "reports",
        ["study_instance_uid", "revision", "id", "verdict", "percentile", "z_score"],
    )
    op.create_index(
        "ix_instances_listed",
        "instances",
        ["study_instance_uid", "received_at", "calling_ae_title", "sop_class_uid"],
    )


def _decisive(result: Any) -> dict[str, Any] | None:
    """Return the score that decides; None where there is none, or the result is of another shape."""
    try:
        score = result["images"][result["decisive"]]["score"]
    except (TypeError, KeyError, IndexError):
        return None
    return score if isinstance(score, dict) else None
