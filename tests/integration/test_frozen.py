"""The locks of a worker that froze in the middle of a statement cost others no command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.databases import dsn
from tests.harness import Harness, eventually

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


def impatient(harness: Harness, *, idle: float) -> dict[str, object]:
    """The settings of a database whose locks are waited for only shortly."""
    database = harness.settings.database.model_dump()
    limits = {"lock_timeout_seconds": 0.3, "idle_in_transaction_timeout_seconds": idle}
    return database | limits


@pytest.mark.parametrize("group_size", [64, 1])
async def test_its_session_is_ended_and_the_command_carried_out(
    harness: Harness, group_size: int
) -> None:
    limits = impatient(harness, idle=0.5)
    async with harness.worker(database=limits, group_size=group_size):
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
    async with harness.worker(database=impatient(harness, idle=idle), max_attempts=3):
        await harness.ask("user.create", data=ANN)
        async with frozen(harness, name.format(harness.settings.namespace)) as pid:
            event = await harness.ask("user.update", target={"username": "ann"}, data={"rating": 5})
            assert not await is_gone(harness, pid)
    assert event.data["code"] == "failed"
