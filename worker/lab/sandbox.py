"""Where a run works: a database of its own beside the service's, or a schema within it.

The lab never writes into the service's database unless told to. A run lives as long as a session of
its name does; what has the name of a dead run is removed by the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.core.errors import Misconfigured
from worker.database.capacity import Room, find_room
from worker.database.engine import make_engine
from worker.database.errors import explain, sqlstate
from worker.lab.scenario import Restart
from worker.lab.steps import HOT, ITEMS
from worker.settings.settings import DatabaseSettings

PREFIX = "worker_lab_"
_COMMENT = "made and removed by `worker lab`, beside "
_DEAD = text(
    "SELECT name FROM (SELECT datname AS name FROM pg_database"
    "  WHERE starts_with(shobj_description(oid, 'pg_database'), :comment)"
    " UNION ALL SELECT nspname FROM pg_namespace) AS made"
    " WHERE starts_with(name, :prefix) AND NOT EXISTS"
    " (SELECT FROM pg_stat_activity WHERE application_name = name || ' lab')"
)
_END = text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name")
_TABLES = (
    'CREATE SCHEMA "{0}"',
    'CREATE TABLE "{0}".items (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 50)',
    'INSERT INTO "{0}".items SELECT id, 0 FROM generate_series(1, {1}) AS id',
    'CREATE TABLE "{0}".hot (id int PRIMARY KEY, value bigint NOT NULL) WITH (fillfactor = 10)',
    'INSERT INTO "{0}".hot SELECT id, 0 FROM generate_series(1, {2}) AS id',
    'ANALYZE "{0}".items',
    'ANALYZE "{0}".hot',
    'CREATE TABLE "{0}".slow_commits (seconds double precision NOT NULL)',
    'CREATE FUNCTION "{0}".sleep_in_commit() RETURNS trigger LANGUAGE plpgsql AS'
    " $$ BEGIN PERFORM pg_sleep(NEW.seconds); RETURN NULL; END $$",
    'CREATE CONSTRAINT TRIGGER sleep AFTER INSERT ON "{0}".slow_commits'
    " DEFERRABLE INITIALLY DEFERRED"
    ' FOR EACH ROW EXECUTE FUNCTION "{0}".sleep_in_commit()',
)
"""What `transaction.py` needs."""


@dataclass(frozen=True)
class Sandbox:
    """Where one run works."""

    name: str
    """Of its schema, and of its database if it has one; also the application name of the pool under
    test, and the run's namespace."""
    settings: DatabaseSettings
    """Of the database that the load goes to."""
    outside: AsyncEngine
    """To the service's database, to look at the server from; it only reads there."""
    is_own: bool
    """Whether the database is the lab's own."""
    room: Room
    """The server's connections, before the run."""
    leftovers: tuple[str, ...]
    """Names of dead runs that were removed at the start; of queues there may be some."""

    @property
    def database(self) -> str:
        """The name of the database that the load goes to."""
        return make_url(self.settings.url.get_secret_value()).database or ""


@asynccontextmanager
async def open_sandbox(
    service: DatabaseSettings,
    *,
    into_service: bool = False,
    check: Callable[[Room], None] = lambda _: None,
) -> AsyncIterator[Sandbox]:
    """Make the place of a run, and remove it at the end whatever has happened.

    `check` is told how many connections the server has, and may refuse by raising.

    Raises `Misconfigured` where the account may not make it; `Unreachable` without a server.
    """
    name = PREFIX + uuid4().hex[:8]
    keeping = _engine(service, f"{name} lab", connections=1)
    outside = _engine(service, f"{name} lab", connections=3)
    try:
        # Connected until the end: it is by this session that the run is known to live.
        async with _alone(keeping) as keeper:
            room = await find_room(outside)
            check(room)
            leftovers = await _remove_dead(keeper)
            try:
                settings = service if into_service else await _make_database(keeper, service, name)
                await _make_tables(settings, name)
                yield Sandbox(name, settings, outside, not into_service, room, leftovers)
            finally:
                await outside.dispose()  # the server may have been restarted meanwhile
                async with _alone(outside) as fresh:
                    await _drop(fresh, name)
    finally:
        await outside.dispose()
        await keeping.dispose()


@asynccontextmanager
async def _alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection without transactions."""
    try:
        connection = await engine.connect()
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    try:
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")
    finally:
        await connection.close()


async def _make_database(
    keeper: AsyncConnection, service: DatabaseSettings, name: str
) -> DatabaseSettings:
    try:
        await keeper.execute(text(f'CREATE DATABASE "{name}" TEMPLATE template0'))
    except SQLAlchemyError as error:
        if sqlstate(error) != "42501":
            raise
        account = await keeper.scalar(text("SELECT current_user"))
        raise Misconfigured(
            f"The lab works in a database of its own, and the account {account} may not create "
            f'one. As a superuser run: ALTER ROLE "{account}" CREATEDB; or let it work in a schema '
            "of the database in WORKER_DATABASE__URL: --into-service-database"
        ) from error
    url = make_url(service.url.get_secret_value())
    comment = f"{_COMMENT}{url.database}".replace("'", "''").replace(":", r"\:")
    await keeper.execute(text(f"COMMENT ON DATABASE \"{name}\" IS '{comment}'"))
    url = url.set(database=name)
    return service.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})


async def _make_tables(settings: DatabaseSettings, name: str) -> None:
    engine = _engine(settings, f"{name} lab", connections=1)
    try:
        async with engine.begin() as connection:
            for statement in _TABLES:
                await connection.execute(text(statement.format(name, ITEMS, HOT)))
    except (SQLAlchemyError, OSError) as error:
        raise explain(error, engine) from error
    finally:
        await engine.dispose()


async def _remove_dead(connection: AsyncConnection) -> tuple[str, ...]:
    names = await connection.scalars(_DEAD, {"prefix": PREFIX, "comment": _COMMENT})
    removed = []
    for name in set(names.all()):
        with suppress(SQLAlchemyError):  # of another account, or another lab was quicker
            await _drop(connection, name)
            removed.append(name)
    return tuple(removed)


async def _drop(connection: AsyncConnection, name: str) -> None:
    """Remove a run's schema or database, and end who still works there: its locks would hold."""
    await connection.execute(_END, {"name": name})
    await connection.execute(text(f'DROP SCHEMA IF EXISTS "{name}" CASCADE'))
    await connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


async def play_restart(sandbox: Sandbox, restart: Restart | None) -> None:
    """Wait for its time, then restart, or do what a restart does to those who are connected.

    Only the lab's own connections are ended, and only the lab's own database lets nobody in, so
    others on the same server notice nothing. In the service's database nobody is kept out.
    """
    if restart is None:
        return
    await asyncio.sleep(restart.at_seconds)
    if restart.command is not None:
        process = await asyncio.create_subprocess_shell(restart.command)
        await process.wait()
        return
    async with _alone(sandbox.outside) as connection:
        allow = f'ALTER DATABASE "{sandbox.name}" ALLOW_CONNECTIONS '
        try:
            if sandbox.is_own:
                await connection.execute(text(allow + "false"))
            await connection.execute(_END, {"name": sandbox.name})
            await asyncio.sleep(restart.down_seconds)
        finally:
            if sandbox.is_own:
                await connection.execute(text(allow + "true"))


def _engine(settings: DatabaseSettings, name: str, *, connections: int) -> AsyncEngine:
    modest = {"pool_size": connections, "max_overflow": 0}
    return make_engine(settings.model_copy(update=modest), name=name)
