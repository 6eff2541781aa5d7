"""Whether the database is as this code needs it: its migrations, and the rights to its tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import structlog
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.core.errors import Misconfigured, Unreachable
from worker.core.models import Base
from worker.database.errors import explain
from worker.database.migration_folders import config_of, environment_among, reached

log = structlog.get_logger(__name__)

PACKAGE = Path(__file__).parents[1]


def alembic_config(*migrations: Path) -> Config:
    """Alembic's configuration, without a file.

    `migrations` are folders as `WORKER_MIGRATIONS` has them; with none, the migrations are those of
    this code. Raises `Misconfigured` where it has none.
    """
    return config_of(environment_among(migrations) or own_migrations(), migrations)


def own_migrations(package: Path = PACKAGE) -> Path:
    """The folder of this code's migrations: within the package, or beside it in a checkout.

    A wheel carries them as `worker/_alembic`. Beside an installed package a folder `alembic` is the
    library of that name, so a checkout is recognised by `env.py`, which the library does not have.
    """
    for folder in (package / "_alembic", package.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise Misconfigured(
        f"The migrations of the worker are missing in {package}. Install it again "
        "(pip install --force-reinstall command-worker), or name their folder in WORKER_MIGRATIONS"
    )


async def check_schema(engine: AsyncEngine, migrations: Sequence[Path] = ()) -> None:
    """Raise `Misconfigured` unless the schema is at the newest migration and may be used.

    A migration that this code does not know is ahead of it: a worker that starts again while an
    upgrade rolls goes on, and says so. Raises `Unreachable` when the database cannot be asked.
    """
    scripts = ScriptDirectory.from_config(alembic_config(*migrations))
    heads = set(scripts.get_heads())
    known = {script.revision for script in scripts.walk_revisions()}
    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(revisions)
            visible = await connection.scalar(_SCHEMA_IN_USE)
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    if ahead := found - known:
        log.warning("the schema is ahead of this worker", at=sorted(ahead), knows=sorted(heads))
    elif visible is None:
        raise Misconfigured(
            "The database account may use no schema of its search_path. As the owner run: "
            "GRANT USAGE ON SCHEMA public TO the_account"
        )
    elif not heads <= reached(scripts, found):
        at = f"is at {', '.join(sorted(found))}" if found else "is empty"
        raise Misconfigured(
            f"The database schema {at}, this worker needs {', '.join(sorted(heads))}. "
            "Bring it there with: worker migrate"
        )
    await check_usable(engine)


def revisions(connection: Connection) -> set[str]:
    """The migrations that the database is at; none where it has no table that says so."""
    return set(MigrationContext.configure(connection).get_current_heads())


async def check_usable(engine: AsyncEngine) -> None:
    """Raise `Unreachable` unless writes are accepted, `Misconfigured` unless tables may be used.

    A schema that is ahead of this code is no reason to stop: that is how an upgrade rolls.
    """
    quote = engine.dialect.identifier_preparer.format_table
    names = {"tables": [quote(table) for table in Base.metadata.sorted_tables]}
    try:
        async with engine.connect() as connection:
            writable = await connection.scalar(_IS_WRITABLE)
            tables = (await connection.execute(_TABLES, names)).all()
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    if not writable:
        # The next connection may lead to a server that does: to another of several hosts, or to
        # what the same name has come to stand for.
        await engine.dispose()
        raise Unreachable("PostgreSQL accepts no writes (it is read-only, or a standby)")
    if missing := ", ".join(table.name for table in tables if not table.found):
        raise Misconfigured(
            f"The database has no table {missing}, and no migration here would make it. For an "
            "entity of your own write one (docs/entities.md); where a newer worker's migration has "
            "removed it, update this worker"
        )
    if lacking := ", ".join(table.name for table in tables if not table.granted):
        raise Misconfigured(
            f"The database account may not read and write: {lacking}. As the owner run: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {lacking} TO the_account"
        )


_SCHEMA_IN_USE = text("SELECT current_schema()")
_IS_WRITABLE = text("SELECT current_setting('transaction_read_only') = 'off'")
_TABLES = text(
    "SELECT name, id IS NOT NULL AS found, has_table_privilege(id, 'SELECT')"
    " AND has_table_privilege(id, 'INSERT') AND has_table_privilege(id, 'UPDATE')"
    " AND has_table_privilege(id, 'DELETE') AS granted"
    " FROM (SELECT name, to_regclass(name) AS id"
    " FROM unnest(CAST(:tables AS text[])) AS name) AS named"
)
