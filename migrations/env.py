"""Runs migrations inside the transaction that ``wsi_denoise.jobs.database.engine`` has opened."""

from __future__ import annotations

from alembic import context

from wsi_denoise.jobs.database.models import Base

connection = context.config.attributes.get("connection")
if connection is not None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite changes a table by rebuilding it
        transactional_ddl=True,  # the caller's BEGIN holds for DDL too, on SQLite as well
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    raise SystemExit("Run wsi-denoise db upgrade: the program opens the database itself.")
