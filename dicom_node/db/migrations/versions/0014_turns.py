"""The queue in the order in which it is worked off."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Two indexes in place of one that no statement could follow to its first row."""
    op.drop_index(op.f("ix_work_items_state_kind_priority_available_at"), table_name="work_items")
    op.create_index(
        "ix_work_items_by_turn", "work_items", ["state", "priority", "available_at", "id"], unique=False
    )
    op.create_index("ix_work_items_by_wait", "work_items", ["state", "available_at", "id"], unique=False)
