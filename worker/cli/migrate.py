"""`worker migrate`: bring the database schema to what this code needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.prepare import complete, read_settings
from worker.cli.terminal import OutputClosed, say

if TYPE_CHECKING:
    from worker.settings.settings import Settings


def migrate(
    sql: Annotated[
        bool,
        typer.Option(
            "--sql",
            help="Only print the SQL of all migrations, from an empty database to the newest "
            "schema; nothing is connected to.",
        ),
    ] = False,
) -> None:
    """Bring the database schema to the newest revision.

    Applies the worker's own migrations and those of WORKER_MIGRATIONS. Safe to run again, and by
    several at once: one does the work, the others wait for it.

    \b
    Examples:
      worker migrate
      worker migrate --sql > schema.sql
    """
    from alembic import command
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from worker.core.errors import Misconfigured
    from worker.database.engine import make_engine
    from worker.database.errors import explain
    from worker.database.migrations import alembic_config

    settings = read_settings()
    config = alembic_config(*settings.migrations)
    if sql:
        try:
            command.upgrade(config, "heads", sql=True)
        except BrokenPipeError:
            raise OutputClosed from None
        return
    try:
        before = complete(_revision(settings))
        command.upgrade(config, "heads")
        after = complete(_revision(settings))
    except CommandError as error:
        raise Misconfigured(
            f"The migrations do not fit this database: {error}. "
            "It may have been brought further by a newer worker: update this one. Or by migrations "
            "of your own: name their folder in WORKER_MIGRATIONS"
        ) from error
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, make_engine(settings.database)) from error
    if before == after:
        say(f"the schema is at {after} already")
    else:
        say(f"the schema was brought from {before or 'nothing'} to {after}")


async def _revision(settings: Settings) -> str:
    """The revision that the database is at; empty if it has none."""
    from worker.database.engine import make_engine
    from worker.database.migrations import revisions

    engine = make_engine(settings.database, name="worker migrate")
    try:
        async with engine.connect() as connection:
            return ", ".join(sorted(await connection.run_sync(revisions)))
    finally:
        await engine.dispose()
