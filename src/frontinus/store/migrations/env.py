"""Alembic's entry: run the steps on the connection that was handed over. Loaded by Alembic, never imported."""

from __future__ import annotations

from alembic import context

from frontinus.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making it anew
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
