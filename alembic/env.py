"""Alembic's environment: the worker's own settings, entities and engine."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

import worker.database.ledger  # noqa: F401 - declares its table
from worker.core.models import Base
from worker.core.registry import load_registry
from worker.database.engine import make_engine
from worker.settings.settings import load_settings

settings = load_settings()
load_registry(settings.entities)

# Two workers that start at once must not migrate at once. Any number will do, if it is always it.
MIGRATION_LOCK = 7_310_554


def _configure_and_run(connection: Connection | None = None) -> None:
    context.configure(
        connection=connection,
        url=None if connection else settings.database.url.get_secret_value(),
        target_metadata=Base.metadata,
        literal_binds=connection is None,
        dialect_opts={"paramstyle": "named"},
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _migrate(connection: Connection) -> None:
    # However long another migration takes, this one waits; but for the service's tables it waits
    # no longer than WORKER_DATABASE__LOCK_TIMEOUT_SECONDS, since all commands would wait behind it.
    connection.exec_driver_sql("SET lock_timeout = 0")
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
    connection.exec_driver_sql("RESET lock_timeout")
    connection.commit()
    try:
        _configure_and_run(connection)
        connection.commit()
    finally:
        connection.rollback()
        connection.exec_driver_sql(f"SELECT pg_advisory_unlock({MIGRATION_LOCK})")
        connection.commit()


async def _migrate_online(engine: AsyncEngine) -> None:
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


# A test, or a program that embeds the migrations, brings its own connection or engine.
given = context.config.attributes.get("connection")
if context.is_offline_mode():
    _configure_and_run()
elif isinstance(given, Connection):
    _configure_and_run(given)
else:
    # A migration may rewrite a table: the limit that protects the service would end it.
    patient = settings.database.model_copy(update={"statement_timeout_seconds": 86_400.0})
    asyncio.run(_migrate_online(given or make_engine(patient, name="worker migrate")))
