"""Which bank a person wants a study analysed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the name of the bank that a work item asks for."""
    op.add_column("work_items", sa.Column("bank", sa.String(length=64), server_default="", nullable=False))
