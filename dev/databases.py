"""Databases of one's own on a server: made from a template, migrated, dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from alembic import command
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from worker.database.migrations import alembic_config


@asynccontextmanager
async def fresh_database(
    server_url: str, name: str, *, template: str = "template1"
) -> AsyncIterator[str]:
    """The address of a new copy of the template, which is dropped in the end."""
    await execute(server_url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield database_url(server_url, name)
    finally:
        await execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def database_url(server_url: str, name: str) -> str:
    """The address of another database on the same server."""
    url = make_url(server_url).set(database=name)
    return url.render_as_string(hide_password=False)


def dsn(url: str) -> str:
    """The address as asyncpg and the programs of PostgreSQL take it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


async def execute(url: str, statement: str) -> None:
    """Run one statement on a connection of its own, outside of any transaction."""
    connection = await asyncpg.connect(dsn(url))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def migrate(url: str, revision: str = "head") -> None:
    """Bring a database to a revision, within this process."""
    engine = create_async_engine(url)
    config = alembic_config()

    def upgrade(connection: object) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine.begin() as connection:
        await connection.run_sync(upgrade)
    await engine.dispose()
