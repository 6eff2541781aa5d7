"""Where the lab works: a database of its own beside the service's, and in it a schema of the run.

The lab never writes into a database that holds the service's tables, unless told to. It finds what
killed runs have left behind, and removes it: a run holds an advisory lock for as long as it lives,
so a schema whose lock is free belongs to nobody any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from time import monotonic
from uuid import uuid4

from pydantic import SecretStr
from sqlalchemy import make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.core.errors import Misconfigured
from worker.database.engine import make_engine
from worker.database.errors import explain, sqlstate
from worker.lab.observer import Limits, read_limits
from worker.lab.tables import create_tables
from worker.settings.settings import DatabaseSettings

DATABASE = "worker_lab"
PREFIX = "worker_lab_"
_COMMENT = "made by `worker lab`, which removes it"
_ONE_AT_A_TIME = 4_027_331
"""Advisory lock in the service's database: two labs do not make and drop the database at once."""

_IS_OURS_AND_EMPTY = text(
    "SELECT shobj_description(oid, 'pg_database') = :comment"
    " AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datid = pg_database.oid)"
    " FROM pg_database WHERE datname = :name"
)
_OURS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = :database"
    " AND starts_with(application_name, :schema)"
)
MOST_ATTEMPTS = 5
OUR_END_SECONDS = 2


@dataclass(frozen=True)
class Place:
    """Where one run works."""

    settings: DatabaseSettings
    """Of the database that the load goes to."""
    schema: str
    """Also the application name of the pool under test, and the run's namespace."""
    outside: AsyncEngine
    """To the service's database, to look at the server from; it only reads there."""
    is_own: bool
    """Whether the database is the lab's own."""
    leftovers: list[str] = field(default_factory=list)
    """Names of dead runs whose schemas were removed at the start; of queues there may be some."""

    @property
    def database(self) -> str:
        """The name of the database that the load goes to."""
        return make_url(self.settings.url.get_secret_value()).database or ""


@asynccontextmanager
async def open_place(
    service: DatabaseSettings,
    service_tables: Iterable[str],
    *,
    into_service: bool = False,
    check: Callable[[Limits], None] = lambda _: None,
) -> AsyncIterator[Place]:
    """Make the place of a run, and remove it at the end whatever has happened.

    `check` is told how many connections the server has, and may refuse by raising.

    Raises `Misconfigured` where the account may not make it, or where the service's tables are in
    the way; `Unreachable` without a server.
    """
    schema = PREFIX + uuid4().hex[:8]
    outside = _engine(service, f"{schema} lab", connections=3)
    settings = service if into_service else _beside(service)
    inside = _engine(settings, f"{schema} lab", connections=2)
    place = Place(settings, schema, outside, is_own=not into_service)
    try:
        try:
            async with outside.connect() as connection:
                check(await read_limits(connection, schema))
            keeper = await _connect(place, inside)
        except (SQLAlchemyError, OSError) as error:
            raise explain(error, outside) from error
        try:
            await _enter(keeper, place, tuple(service_tables))
            yield place
        finally:
            await _leave(keeper, inside, place)
    finally:
        await inside.dispose()
        await outside.dispose()


@asynccontextmanager
async def _alone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ONE_AT_A_TIME})
        try:
            yield connection
        finally:
            await connection.execute(
                text("SELECT pg_advisory_unlock(:key)"), {"key": _ONE_AT_A_TIME}
            )


async def _connect(place: Place, inside: AsyncEngine) -> AsyncConnection:
    """The connection that keeps the place; makes the lab's database where it is missing."""
    for attempt in count(1):
        async with _alone(place.outside) as admin:
            if place.is_own:
                await _have_database(admin)
            try:
                return await inside.connect()
            except SQLAlchemyError as error:
                # A lab of another service on this server has just removed it: once more.
                if sqlstate(error) != "3D000" or attempt == MOST_ATTEMPTS:
                    raise
    raise AssertionError


_CROSSED = ("42P04", "23505", "3D000")
"""A lab of another service on this server has just made the database, or removed it."""


async def _have_database(admin: AsyncConnection) -> None:
    allowed = await admin.scalar(
        text("SELECT datallowconn FROM pg_database WHERE datname = :name"), {"name": DATABASE}
    )
    try:
        if allowed is None:
            await admin.execute(text(f"CREATE DATABASE {DATABASE} TEMPLATE template0"))
            await admin.execute(text(f"COMMENT ON DATABASE {DATABASE} IS '{_COMMENT}'"))
        elif not allowed:
            # A run was killed while it played a restart.
            await admin.execute(text(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS true"))
    except SQLAlchemyError as error:
        if sqlstate(error) in _CROSSED:
            return
        if sqlstate(error) != "42501":
            raise
        account = await admin.scalar(text("SELECT current_user"))
        raise Misconfigured(
            f"The lab works in a database of its own, {DATABASE}, and the account {account} may "
            f'not create it. As a superuser run: CREATE DATABASE {DATABASE} OWNER "{account}"; '
            "or let it work in a schema of the service's database: --into-service-database"
        ) from error


async def _enter(keeper: AsyncConnection, place: Place, service_tables: tuple[str, ...]) -> None:
    await keeper.execution_options(isolation_level="AUTOCOMMIT")
    if place.is_own:
        await _check_foreign(keeper, service_tables)
    place.leftovers.extend(await remove_leftovers(keeper))
    await keeper.execute(text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": place.schema})
    await create_tables(keeper, place.schema)


async def _check_foreign(keeper: AsyncConnection, service_tables: tuple[str, ...]) -> None:
    # A run of the path `service` has tables of these names in its own schema.
    found = await keeper.scalars(
        text(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relname = ANY(CAST(:tables AS text[]))"
            " AND NOT starts_with(relnamespace::regnamespace::text, :own) ORDER BY 1"
        ),
        {"tables": list(service_tables), "own": f"{DATABASE}_"},
    )
    if tables := list(found):
        raise Misconfigured(
            f"The database {DATABASE} holds tables of the service ({', '.join(tables)}), and the "
            "lab does not write there. Rename it, or tell the lab to work in a schema of the "
            "service's database: --into-service-database"
        )


async def remove_leftovers(connection: AsyncConnection) -> list[str]:
    """Drop the schemas of runs that are dead; their names."""
    schemas = await connection.scalars(
        text("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, :prefix)"),
        {"prefix": PREFIX},
    )
    removed = []
    for schema in schemas.all():
        lock = {"name": schema}
        if await connection.scalar(text("SELECT pg_try_advisory_lock(hashtext(:name))"), lock):
            await _drop(connection, schema)
            await connection.execute(text("SELECT pg_advisory_unlock(hashtext(:name))"), lock)
            removed.append(schema)
    return removed


async def _drop(connection: AsyncConnection, schema: str) -> None:
    # Whoever still works there belongs to a dead run; its locks would hold up the drop.
    await connection.execute(
        text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"
        ),
        {"name": schema},
    )
    await connection.execute(text(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'))


async def _leave(keeper: AsyncConnection, inside: AsyncEngine, place: Place) -> None:
    """Remove the schema, and the lab's own database once nobody else works in it."""
    try:
        try:
            await _drop(keeper, place.schema)
        except SQLAlchemyError:  # the server was restarted meanwhile
            async with inside.connect() as fresh:
                await fresh.execution_options(isolation_level="AUTOCOMMIT")
                await _drop(fresh, place.schema)
    finally:
        await keeper.close()
        await inside.dispose()
    if not place.is_own:
        return
    async with _alone(place.outside) as admin:
        # A session of ours takes a moment to end.
        until = monotonic() + OUR_END_SECONDS
        ours = {"database": DATABASE, "schema": place.schema}
        while monotonic() < until and await admin.scalar(_OURS, ours):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        # Where another run works, it is that one which removes it. The server would wait five
        # seconds for it to go, and meanwhile let nobody else in.
        if await admin.scalar(_IS_OURS_AND_EMPTY, {"name": DATABASE, "comment": _COMMENT}):
            with suppress(SQLAlchemyError):  # somebody has just come
                await admin.execute(text(f"DROP DATABASE {DATABASE}"))


def _beside(service: DatabaseSettings) -> DatabaseSettings:
    url = make_url(service.url.get_secret_value()).set(database=DATABASE)
    return service.model_copy(update={"url": SecretStr(url.render_as_string(hide_password=False))})


def _engine(settings: DatabaseSettings, name: str, *, connections: int) -> AsyncEngine:
    modest = {"pool_size": connections, "max_overflow": 0}
    return make_engine(settings.model_copy(update=modest), name=name)
