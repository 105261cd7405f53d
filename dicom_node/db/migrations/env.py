"""Run by Alembic, never imported: hands it the open connection that `dicom_node.db.migrate` put aside."""

from __future__ import annotations

from alembic import context

from dicom_node.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=True,
)
# The caller opened the transaction and will commit it: on SQLite, too, every step is inside it.
context.run_migrations()
