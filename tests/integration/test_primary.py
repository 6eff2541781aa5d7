"""A server that has turned read-only is left, with every connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.databases import execute
from worker.core.errors import Unreachable
from worker.database.engine import make_engine
from worker.database.failover import READ_ONLY
from worker.database.migrations import check_usable
from worker.database.pool.pool import pool_of
from worker.processing.fault_kinds import FaultKind, classify, is_doubtful
from worker.settings.settings import DatabaseSettings


@pytest.fixture
async def engine(database: str) -> AsyncIterator[AsyncEngine]:
    engine = make_engine(DatabaseSettings.model_validate({"url": database, "pool_size": 2}))
    yield engine
    await engine.dispose()


async def two_sessions(engine: AsyncEngine) -> set[int]:
    """The backends of two connections that are out at the same time."""
    both = asyncio.Barrier(2)

    async def session() -> int:
        async with engine.connect() as connection:
            await both.wait()
            pid: int = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            return pid

    return set(await asyncio.gather(session(), session()))


async def test_a_write_that_is_refused_empties_the_pool(engine: AsyncEngine) -> None:
    before = await two_sessions(engine)
    async with engine.connect() as connection:
        await connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(text("DELETE FROM users"))

    assert getattr(caught.value.orig, "sqlstate", None) == READ_ONLY
    assert classify(caught.value) is FaultKind.OUTAGE
    assert not is_doubtful(caught.value)
    assert not before & await two_sessions(engine)


async def test_a_look_that_finds_no_writes_empties_the_pool(
    engine: AsyncEngine, database: str
) -> None:
    name = make_url(database).database
    await execute(database, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with pytest.raises(Unreachable, match="no writes"):
        await check_usable(engine)

    assert pool_of(engine).snapshot().idle == 0


async def test_of_several_hosts_one_that_answers_is_found(database: str) -> None:
    url = make_url(database)
    hosts = {"host": f"127.0.0.1,{url.host}", "port": f"1,{url.port or 5432}"}
    several = URL.create(
        url.drivername, url.username, url.password, database=url.database, query=hosts
    ).render_as_string(hide_password=False)
    engine = make_engine(DatabaseSettings.model_validate({"url": several}))
    try:
        await check_usable(engine)
        assert pool_of(engine).snapshot().idle == 1
    finally:
        await engine.dispose()
