"""Locks that others hold for long.

Those of a worker that froze in the middle of a statement cost others no command; and a row that is
locked holds up only the commands that are about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from dev.databases import dsn
from tests.support.harness import Harness, eventually

ANN = {"username": "ann", "email": "ann@example.com"}


@asynccontextmanager
async def frozen(harness: Harness, name: str) -> AsyncIterator[int]:
    """The process of a session that holds a row's lock and has prepared a statement; no more.

    PostgreSQL calls it active, so that no limit of its own ends it.
    """
    url = dsn(harness.settings.database.url.get_secret_value())
    limits = {"idle_in_transaction_session_timeout": "100", "statement_timeout": "100"}
    connection = await asyncpg.connect(url, server_settings={"application_name": name, **limits})
    try:
        await connection.execute("BEGIN")
        await connection.execute("UPDATE users SET rating = 1 WHERE username = 'ann'")
        await connection.prepare("SELECT 1 + $1::int")
        yield connection.get_server_pid()
    finally:
        connection.terminate()


async def is_gone(harness: Harness, pid: int) -> bool:
    return not await harness.rows("SELECT FROM pg_stat_activity WHERE pid = $1", pid)


def limits(harness: Harness, *, lock: float = 0.3, idle: float = 30) -> dict[str, object]:
    """The settings of a database: how long locks are waited for, and sessions may be idle."""
    database = harness.settings.database.model_dump()
    return database | {"lock_timeout_seconds": lock, "idle_in_transaction_timeout_seconds": idle}


@pytest.mark.parametrize("group_size", [64, 1])
async def test_its_session_is_ended_and_the_command_carried_out(
    harness: Harness, group_size: int
) -> None:
    async with harness.worker(database=limits(harness, idle=0.5), group_size=group_size):
        await harness.ask("user.create", data=ANN)
        async with frozen(harness, f"{harness.settings.namespace} worker") as pid:
            ids = [
                await harness.send("user.update", target={"username": "ann"}, data={"rating": 5}),
                await harness.send("user.create", data={"username": "bob", "email": "b@b.de"}),
            ]
            events = [(await harness.event(id_)).routing_key for id_ in ids]
            assert events == ["user.updated", "user.created"]
            await eventually(lambda: is_gone(harness, pid))
    (row,) = await harness.rows("SELECT rating FROM users WHERE username = 'ann'")
    assert row["rating"] == 5


@pytest.mark.parametrize(
    ("name", "idle"), [("somebody else", 0.1), ("{} worker", 60)], ids=["others", "just now"]
)
async def test_others_and_whoever_is_only_slow_are_let_be(
    harness: Harness, name: str, idle: float
) -> None:
    database = limits(harness, idle=idle)
    async with harness.worker(database=database, max_attempts=3, contention_seconds=1):
        await harness.ask("user.create", data=ANN)
        async with frozen(harness, name.format(harness.settings.namespace)) as pid:
            event = await harness.ask("user.update", target={"username": "ann"}, data={"rating": 5})
            assert not await is_gone(harness, pid)
    assert event.data["code"] == "failed"


async def test_neighbours_wait_but_briefly_for_a_row_that_is_locked(harness: Harness) -> None:
    """As long as it takes to find the command and to let it try, not once for each halving."""
    lock_timeout, neighbours = 2.0, 100
    commands: list[dict[str, object]] = [
        {"type": "user.create", "data": {"username": f"u-{number}", "email": f"{number}@x.example"}}
        for number in range(neighbours)
    ]
    update: dict[str, object] = {
        "type": "user.update",
        "target": {"username": "ann"},
        "data": {"rating": 5},
    }
    commands.insert(neighbours // 2, update)

    database = limits(harness, lock=lock_timeout)
    async with harness.worker(database=database, lanes=1, group_size=len(commands)):
        await harness.ask("user.create", data=ANN)
        async with frozen(harness, "somebody else"):
            async with asyncio.timeout(4 * lock_timeout):
                ids = await harness.send_all(commands)
                locked = ids.pop(neighbours // 2)
                events = [(await harness.event(id_)).routing_key for id_ in ids]
            assert events == ["user.created"] * neighbours
        assert (await harness.event(locked)).routing_key == "user.updated"
