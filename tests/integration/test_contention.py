"""Waiting for others is not failing: no command is given up for what they do to its rows."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from dev.databases import dsn
from tests.support.harness import Harness, creates, eventually

ANN = {"username": "ann", "email": "ann@example.com"}


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_snapshots_that_are_overtaken_cost_no_command(harness: Harness, level: str) -> None:
    """Commands about one row, under keys that let them run at once."""
    (row,) = await harness.rows("SELECT current_database() AS name")
    await harness.rows(
        f"ALTER DATABASE {row['name']} SET default_transaction_isolation = '{level}'"
    )
    commands = [
        {
            "type": "user.update",
            "target": {"username": "ann"},
            "data": {"rating": number},
            "key": f"k{number}",
        }
        for number in range(120)
    ]
    async with harness.worker(max_attempts=2, group_size=4):
        await harness.ask("user.create", data=ANN)
        ids = await harness.send_all(commands)
        events = [await harness.event(id_, within=60) for id_ in ids]
    assert {event.routing_key for event in events} == {"user.updated"}
    (row,) = await harness.rows("SELECT version FROM users")
    assert row["version"] == 1 + len(commands)


async def test_a_table_that_is_locked_for_long_costs_no_command(harness: Harness) -> None:
    database = harness.settings.database.model_dump() | {"lock_timeout_seconds": 0.1}
    url = dsn(harness.settings.database.url.get_secret_value())
    async with harness.worker(database=database, max_attempts=2) as service:
        other = await asyncpg.connect(url)
        try:
            async with other.transaction():
                await other.execute("LOCK TABLE users IN EXCLUSIVE MODE")
                ids = await harness.send_all(creates(range(20)))
                # Longer than all attempts together would take.
                await asyncio.sleep(3)
                assert harness.events == []
                assert service.health.ready
        finally:
            await other.close()
        events = [await harness.event(id_) for id_ in ids]
    assert {event.routing_key for event in events} == {"user.created"}


async def test_neighbours_go_on_meanwhile(harness: Harness) -> None:
    """A command that waits for a row tries briefly, once it has waited as long as it may."""
    database = harness.settings.database.model_dump() | {"lock_timeout_seconds": 1}
    url = dsn(harness.settings.database.url.get_secret_value())
    async with harness.worker(database=database, lanes=1):
        await harness.ask("user.create", data=ANN)
        other = await asyncpg.connect(url)
        try:
            async with other.transaction():
                await other.execute("SELECT FROM users FOR UPDATE")
                locked = await harness.send(
                    "user.update", target={"username": "ann"}, data={"rating": 1}
                )
                await eventually(lambda: _is_waited_for(harness))
                for command in creates(range(10)):
                    await harness.event(await harness.send(**_members(command)), within=3)
        finally:
            await other.close()
        assert (await harness.event(locked)).routing_key == "user.updated"


def _members(command: dict[str, Any]) -> dict[str, Any]:
    return {"type_": command["type"], "data": command["data"]}


async def _is_waited_for(harness: Harness) -> bool:
    return bool(
        await harness.rows(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()"
        )
    )
