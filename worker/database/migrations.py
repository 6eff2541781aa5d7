"""Whether the database is as this code needs it: its migrations, and the rights to its tables."""

from __future__ import annotations

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

log = structlog.get_logger(__name__)


def alembic_config(migrations: Path | None = None) -> Config:
    """Alembic's configuration, without a file.

    `migrations` is the folder of the migrations; by default those of this code, which lie beside
    the package in a checkout and within it where it was installed.
    """
    package = Path(__file__).parents[1]
    checkout = package.parent / "alembic"
    folder = migrations or (checkout if checkout.is_dir() else package / "_alembic")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def check_schema(engine: AsyncEngine, migrations: Path | None = None) -> None:
    """Raise `Misconfigured` unless the schema is at the newest migration and may be used.

    A migration that this code does not know is ahead of it: a worker that starts again while an
    upgrade rolls goes on, and says so. Raises `Unreachable` when the database cannot be asked.
    """
    scripts = ScriptDirectory.from_config(alembic_config(migrations))
    heads = set(scripts.get_heads())
    known = {script.revision for script in scripts.walk_revisions()}

    def current(connection: Connection) -> set[str]:
        return set(MigrationContext.configure(connection).get_current_heads())

    try:
        async with engine.connect() as connection:
            found = await connection.run_sync(current)
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    if ahead := found - known:
        log.warning("the schema is ahead of this worker", at=sorted(ahead), knows=sorted(heads))
    elif found != heads:
        at = f"is at {', '.join(sorted(found))}" if found else "is empty"
        raise Misconfigured(
            f"The database schema {at}, this worker needs {', '.join(sorted(heads))}. "
            "Bring it there with: worker migrate"
        )
    await check_usable(engine)


async def check_usable(engine: AsyncEngine) -> None:
    """Raise `Unreachable` unless writes are accepted, `Misconfigured` unless tables may be used.

    A schema that is ahead of this code is no reason to stop: that is how an upgrade rolls.
    """
    try:
        async with engine.connect() as connection:
            writable = await connection.scalar(_IS_WRITABLE)
            tables = {"tables": sorted(Base.metadata.tables)}
            lacking = (await connection.scalars(_LACKING, tables)).all()
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    if not writable:
        # The next connection may lead to a server that does: to another of several hosts, or to
        # what the same name has come to stand for.
        await engine.dispose()
        raise Unreachable("PostgreSQL accepts no writes (it is read-only, or a standby)")
    if lacking:
        raise Misconfigured(
            f"The database account may not read and write: {', '.join(lacking)}. As the owner run: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(lacking)} TO the_account"
        )


_IS_WRITABLE = text("SELECT current_setting('transaction_read_only') = 'off'")
_LACKING = text(
    "SELECT name FROM unnest(CAST(:tables AS text[])) AS name"
    " WHERE to_regclass(name) IS NULL OR NOT (has_table_privilege(name, 'SELECT')"
    " AND has_table_privilege(name, 'INSERT') AND has_table_privilege(name, 'UPDATE')"
    " AND has_table_privilege(name, 'DELETE'))"
)
