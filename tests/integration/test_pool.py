"""The pool's numbers are those of the server, and its measures those of the clock."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import asyncpg
import pytest
import structlog
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.harness import Harness, eventually
from worker.database.capacity import find_room
from worker.database.engine import make_engine, make_sessions
from worker.database.pool.pool import pool_of
from worker.settings.settings import DatabaseSettings

NAME = "pool under test"

Count = Callable[[], Awaitable[dict[str, int]]]


@pytest.fixture
async def engine(empty_database: str) -> AsyncIterator[AsyncEngine]:
    it = make_engine(
        DatabaseSettings.model_validate(
            {
                "url": empty_database,
                "pool_size": 3,
                "max_overflow": 2,
                "pool_timeout_seconds": 0.5,
            }
        ),
        name=NAME,
    )
    yield it
    await it.dispose()


@pytest.fixture
async def server(engine: AsyncEngine) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own, to look and to break."""
    url = make_url(engine.url).set(drivername="postgresql")
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    yield connection
    await connection.close()


async def states(server: asyncpg.Connection) -> dict[str, int]:
    rows = await server.fetch(
        "SELECT state, count(*) FROM pg_stat_activity WHERE application_name = $1 GROUP BY state",
        NAME,
    )
    return dict(rows)


async def sleep(engine: AsyncEngine, seconds: float) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


async def test_the_snapshot_is_what_the_server_sees(
    engine: AsyncEngine, server: asyncpg.Connection
) -> None:
    pool = pool_of(engine)
    tasks = [asyncio.create_task(sleep(engine, 0.4)) for _ in range(7)]

    async def busy() -> bool:
        return (await states(server)) == {"active": 5}

    await eventually(busy)
    now = pool.snapshot()
    assert (now.size, now.max_overflow) == (3, 2)
    assert (now.in_use, now.idle, now.overflow, now.waiting) == (5, 0, 2, 2)
    assert now.oldest_waiter_seconds > 0
    assert pool.name == NAME

    # Those that waited may have waited for too long, where the machine has much else to do.
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} <= {type(None), PoolTimeout}

    async def rested() -> bool:
        return (await states(server)) == {"idle": 3}

    await eventually(rested)
    now = pool.snapshot()
    assert (now.in_use, now.idle, now.overflow, now.waiting) == (0, 3, 0, 0)
    assert pool.meter.created - pool.meter.closed == 3


async def test_a_hold_is_split_into_its_parts(engine: AsyncEngine) -> None:
    meter = pool_of(engine).meter
    await sleep(engine, 0)  # what a first connection does besides
    before = meter.snapshot()
    async with make_sessions(engine).begin() as session:
        await session.execute(text("SELECT pg_sleep(0.1)"))
        await asyncio.sleep(0.2)
        await session.execute(text("SELECT 1"))
    span = meter.since(before)

    assert span.use.count == span.wait.count == span.commit.count == 1
    assert span.query.count == 2
    assert (span.waited, span.rollback.count) == (0, 0)
    # What is between the parts, and a busy machine lengthens, is less than any of them.
    assert 0.1 <= span.query.max < 0.2 <= span.idle_in_transaction.max < 0.3
    parts = span.query.sum + span.idle_in_transaction.sum + span.commit.sum
    assert parts <= span.use.sum < parts + 0.1


async def test_a_rollback_ends_the_transaction_as_a_commit_does(engine: AsyncEngine) -> None:
    meter = pool_of(engine).meter
    with pytest.raises(DBAPIError):
        await fail(engine)
    async with engine.connect() as connection:
        await connection.rollback()  # there is nothing to roll back

    assert (meter.query.count, meter.commit.count, meter.rollback.count) == (1, 0, 1)
    assert meter.use.count == 2


async def fail(engine: AsyncEngine) -> None:
    async with make_sessions(engine).begin() as session:
        await session.execute(text("SELECT 1 / 0"))


async def test_time_after_the_commit_is_not_idle_in_transaction(engine: AsyncEngine) -> None:
    meter = pool_of(engine).meter
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        await asyncio.sleep(0.1)
        await connection.execute(text("SELECT 1"))

    assert meter.idle_in_transaction.max < 0.05
    assert meter.use.max >= 0.1


async def test_every_way_of_executing_is_measured(engine: AsyncEngine) -> None:
    meter = pool_of(engine).meter
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TEMP TABLE numbers (n int)"))
        await connection.execute(text("INSERT INTO numbers VALUES (:n)"), [{"n": 1}, {"n": 2}])
        await connection.exec_driver_sql("SELECT * FROM numbers")
        plain = await connection.execution_options(no_parameters=True)
        await plain.exec_driver_sql("SELECT '%' FROM numbers")

    assert meter.query.count == 4


async def test_a_broken_connection_is_counted_and_replaced(
    engine: AsyncEngine, server: asyncpg.Connection
) -> None:
    meter = pool_of(engine).meter
    await sleep(engine, 0)
    await server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", NAME
    )
    with pytest.raises(DBAPIError):
        await sleep(engine, 0)
    await sleep(engine, 0)

    assert (meter.created, meter.closed, meter.invalidated, meter.recycled) == (2, 1, 1, 0)
    assert pool_of(engine).snapshot().in_use == 0


async def test_an_old_connection_is_recycled(empty_database: str) -> None:
    engine = make_engine(
        DatabaseSettings.model_validate({"url": empty_database, "pool_recycle_seconds": 0.5})
    )
    meter = pool_of(engine).meter
    try:
        await sleep(engine, 0)
        await asyncio.sleep(0.6)  # the age is what is tested
        await sleep(engine, 0)
        assert (meter.created, meter.closed, meter.recycled) == (2, 1, 1)
        assert meter.connect.count == 2
        assert pool_of(engine).snapshot().idle == 1
    finally:
        await engine.dispose()


async def test_an_attempt_that_fails_is_no_connection(empty_database: str) -> None:
    url = make_url(empty_database).set(port=1).render_as_string(hide_password=False)
    engine = make_engine(DatabaseSettings.model_validate({"url": url}))
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            await sleep(engine, 0)
    meter = pool_of(engine).meter

    assert (meter.failed, meter.created, meter.connect.count) == (3, 0, 0)
    assert pool_of(engine).snapshot().in_use == 0


async def test_cancelled_and_timed_out_work_leaves_nothing_behind(
    engine: AsyncEngine, server: asyncpg.Connection
) -> None:
    """Cancelled while it waits, connects, queries or commits: 400 times."""
    pool = pool_of(engine)
    for round_ in range(20):
        tasks = [asyncio.create_task(sleep(engine, 0.005)) for _ in range(20)]
        for delay, task in enumerate(tasks):
            await asyncio.sleep(delay % (round_ + 2) / 1_000)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    gc.collect()  # what asyncpg leaves of handshakes is told of now, and not when all has ended
    await eventually(lambda: pool.snapshot().in_use == pool.snapshot().waiting == 0)

    async def only_the_idle_are_left() -> bool:
        found = await states(server)
        return set(found) <= {"idle"} and found.get("idle", 0) == pool.snapshot().idle

    await eventually(only_the_idle_are_left)
    assert pool.meter.created - pool.meter.closed == pool.snapshot().idle <= 3


async def test_dispose_under_load_keeps_the_bound(
    engine: AsyncEngine, server: asyncpg.Connection
) -> None:
    most = 0

    async def load() -> None:
        with suppress(PoolTimeout):
            for _ in range(10):
                await sleep(engine, 0.005)

    clients = [asyncio.create_task(load()) for _ in range(12)]
    while not all(client.done() for client in clients):
        await engine.dispose()
        most = max(most, sum((await states(server)).values()))
        await asyncio.sleep(0.01)
    await asyncio.gather(*clients)
    pool = pool_of(engine)

    assert 0 < most <= 5
    assert pool.snapshot().in_use == 0
    assert pool.meter.created > 5
    assert pool.meter.created - pool.meter.closed == pool.snapshot().idle


async def test_others_connections_leave_less_room(
    engine: AsyncEngine, server: asyncpg.Connection
) -> None:
    before = await find_room(engine, processes=3)
    url = make_url(engine.url).set(drivername="postgresql")
    others = [
        await asyncpg.connect(url.render_as_string(hide_password=False), timeout=5)
        for _ in range(4)
    ]
    try:
        after = await find_room(engine, processes=3)
    finally:
        for other in others:
            await other.close()

    assert after.wanted == 15
    assert after.most == int(await server.fetchval("SHOW max_connections"))
    assert after.reserved >= int(await server.fetchval("SHOW superuser_reserved_connections"))
    # Other tests may come and go meanwhile, but `server` and the four are there.
    assert after.others >= 5
    assert before.others >= 1


async def test_the_worker_says_at_start_that_its_pool_is_too_big(harness: Harness) -> None:
    with structlog.testing.capture_logs() as logs:
        async with harness.worker(processes=1_000):
            said = await eventually(
                lambda: [line["reason"] for line in logs if "outgrow" in line["event"]]
            )

    assert len(said) == 1
    assert said[0].startswith("1000 × (pool_size 10 + max_overflow 20) = 30000 connections may be")
