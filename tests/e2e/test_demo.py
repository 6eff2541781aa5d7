"""`worker demo`: commands beside their events, and nothing left behind."""

from __future__ import annotations

import asyncio
import re

import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from tests.support.commandline import CommandLine
from tests.support.harness import Harness
from worker.testing.proxy import Proxy


async def test_it_shows_what_a_worker_does_and_leaves_nothing(
    cli: CommandLine, harness: Harness
) -> None:
    # Several on the same database do not meet.
    shown, _ = await asyncio.gather(cli("demo", COLUMNS="80"), cli("demo"))
    words = re.findall(r"^(command|event) +(\S+)", shown.out, re.MULTILINE)
    assert words == [
        ("command", "user.create"),
        ("event", "user.created"),
        ("command", "user.update"),
        ("event", "user.updated"),
        ("command", "order.create"),
        ("event", "order.created"),
        ("command", "user.create"),
        ("event", "user.create.rejected"),
        ("command", "user.create"),
        ("event", "user.created"),
        ("command", "order.delete"),
        ("event", "order.deleted"),
        ("command", "user.delete"),
        ("event", "user.deleted"),
    ]
    assert "7 commands, each with the event expected" in shown.out
    assert "worker publish user.create username=ann" in shown.out
    assert "make run" in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80
    assert all(line.isprintable() for line in shown.out.splitlines())
    assert shown.err == ""
    assert await harness.rows("SELECT 1 FROM users") == []
    assert await harness.rows("SELECT 1 FROM orders") == []


async def test_what_did_not_come_is_told_and_its_queues_are_deleted(
    cli: CommandLine, harness: Harness, proxy: Proxy
) -> None:
    sent = proxy.record()
    shown = await cli("demo", code=1, WORKER_ENTITIES="tests.support.slow_entities")
    assert "user.create got command.rejected, not user.created" in shown.err
    (namespace,) = set(re.findall(rb"demo-[0-9a-f]{8}", sent))
    for queue in ("commands", "events", "dead-letters"):
        channel = await harness.connection.channel()
        with pytest.raises(ChannelNotFoundEntity):
            await channel.declare_queue(f"{namespace.decode()}.{queue}", passive=True)


async def test_a_schema_that_is_missing_is_told(cli: CommandLine, empty_database: str) -> None:
    result = await cli("demo", code=2, WORKER_DATABASE__URL=empty_database)
    assert "worker migrate" in result.err


async def test_a_database_that_is_away_is_not_waited_for(cli: CommandLine) -> None:
    away = "postgresql+asyncpg://127.0.0.1:1/none"
    result = await cli("demo", code=4, WORKER_DATABASE__URL=away)
    assert "PostgreSQL cannot be reached" in result.err
