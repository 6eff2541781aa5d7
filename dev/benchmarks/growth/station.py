"""One worker drains one queue: how fast, with how much memory, and was everything done once?"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

import aio_pika
import asyncpg
import psutil
from pydantic import Field

from dev.benchmarks.arena import Arena, Place
from dev.benchmarks.catalogue import CONTENDERS
from dev.benchmarks.drain import fill
from dev.benchmarks.figures import rate
from dev.benchmarks.observer import observe
from dev.benchmarks.process import running
from dev.benchmarks.usage import peak_bytes
from dev.databases import dsn
from worker.broker.client.client import remove
from worker.lab.durations import Model

SAMPLE_SECONDS = 0.5

Keys = Literal["random", "time-ordered"]


class Drained(Model):
    """What one drain has shown."""

    round: int
    part: str
    """What is compared: `rows`, `backlog` or `lanes`."""
    size: int
    """Rows in each table, commands in the queue, or lanes."""
    keys: Keys
    commands: int
    rate: float
    """Commands per second, counted from events."""
    peak_bytes: int
    memory: list[tuple[float, int]] = Field(default_factory=list)
    """Resident memory all the while: seconds since the start, bytes."""
    fault: str | None = None
    """What was not done exactly once."""


def creates(count: int, keys: Keys) -> list[bytes]:
    """`user.create` commands that nobody has sent before.

    Ids and names are random as a UUID of version 4, or begin with the time as one of version 7:
    the first go all over an index, the others to its end.
    """
    start = time.time_ns() // 1_000_000
    bodies = []
    for number in range(count):
        unique = uuid.uuid4().hex
        if keys == "time-ordered":
            unique = f"{start + number // 4:012x}{unique[12:]}"
        data = {"username": unique, "email": f"{unique}@example.com", "rating": 4.5}
        bodies.append(json.dumps({"id": unique, "type": "user.create", "data": data}).encode())
    return bodies


@asynccontextmanager
async def queues_beside(place: Place, database_url: str) -> AsyncIterator[Arena]:
    """Fresh queues and exchanges for a database that is there already; removed in the end."""
    async with await aio_pika.connect(place.broker_url) as connection:
        arena = Arena(place.broker_url, database_url, f"growth_{uuid.uuid4().hex[:8]}")
        await arena.topology.ensure(connection)
        try:
            yield arena
        finally:
            await remove(connection, arena.topology)


async def drained(
    place: Place,
    database_url: str,
    turn: Drained,
    *,
    environment: Mapping[str, str] | None = None,
) -> Drained:
    """Fill a queue with the turn's commands, start a worker, wait for all events, and check.

    Raises `ContenderFailed` if the worker ends or falls silent before.
    """
    contender = replace(CONTENDERS["worker"], environment=environment or {})
    async with queues_beside(place, database_url) as arena:
        await fill(contender, arena, creates(turn.commands, turn.keys))
        start = await _asked(database_url, "SELECT now(), (SELECT max(id) FROM users)")
        async with observe(arena) as observer, running(contender, arena) as process:
            observer.bodies = _Nothing()
            memory: list[tuple[float, int]] = []
            watching = asyncio.create_task(_watch(process.session, memory))
            try:
                await process.while_it_runs(observer.reached(turn.commands))
                peak = peak_bytes(process.session)
            finally:
                watching.cancel()
            await process.stop()
        users, entries = await _asked(database_url, _SINCE, start[0], start[1] or 0)
    return turn.model_copy(
        update={
            "rate": rate(observer.times[: turn.commands]),
            "peak_bytes": peak or 0,
            "memory": memory,
            "fault": fault(turn.commands, len(observer.times), users, entries),
        }
    )


class _Nothing(list[bytes]):
    """Keeps no event: a million of them would take more than what is measured."""

    def append(self, _: bytes) -> None:
        pass


async def _watch(session: int, memory: list[tuple[float, int]]) -> None:
    process, start = psutil.Process(session), time.monotonic()
    while True:
        memory.append((round(time.monotonic() - start, 1), process.memory_info().rss))
        await asyncio.sleep(SAMPLE_SECONDS)


_SINCE = """
SELECT (SELECT count(*) FROM users WHERE id > $2),
  (SELECT count(*) FROM command_ledger WHERE recorded_on >= $1)
"""


async def _asked(database_url: str, query: str, *values: Any) -> asyncpg.Record:
    connection = await asyncpg.connect(dsn(database_url))
    try:
        return await connection.fetchrow(query, *values)
    finally:
        await connection.close()


def fault(commands: int, events: int, users: int, entries: int) -> str | None:
    """What there is not as often as there were commands."""
    found = {"events": events, "users": users, "ledger entries": entries}
    wrong = [f"{count:,} {what}" for what, count in found.items() if count != commands]
    return f"{', '.join(wrong)} for {commands:,} commands" if wrong else None
