"""Procedure steps that this node offers as a UPS provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), server_default="", nullable=False)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    """Add the tables of steps, of their subscribers and of what these are owed."""
    op.create_table(
        "procedure_steps",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("work_item_id", sa.BigInteger(), nullable=True),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("current", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        _text("digest", 64),
        _text("asked_by", 16),
        _text("archive", 64),
        _moment("fetch_at", nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        _moment("created_at"),
        _moment("started_at", nullable=True),
        _moment("ended_at", nullable=True),
        _moment("updated_at"),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_procedure_steps")),
    )
    for columns in (["work_item_id"], ["state", "created_at"], ["study_instance_uid"], ["fetch_at"]):
        op.create_index(op.f("ix_procedure_steps_" + "_".join(columns)), "procedure_steps", columns, unique=False)
    op.create_table(
        "step_subscriptions",
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        _text("peer_address", 64),
        _text("filter_digest", 64),
        sa.Column("wanted", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("lock", sa.Boolean(), server_default=sa.false(), nullable=False),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("ae_title", "sop_instance_uid", name=op.f("pk_step_subscriptions")),
    )
    op.create_index(
        op.f("ix_step_subscriptions_sop_instance_uid"), "step_subscriptions", ["sop_instance_uid"], unique=False
    )
    op.create_table(
        "step_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        _text("peer_address", 64),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ready", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        _moment("at"),
        _moment("due_at"),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_step_events")),
    )
    for column in ("due_at", "ae_title"):
        op.create_index(op.f(f"ix_step_events_{column}"), "step_events", [column], unique=False)
