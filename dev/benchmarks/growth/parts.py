"""What is compared with what, in turns that are shuffled anew in each round."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TypeVar, get_args

import asyncpg

from dev.benchmarks.arena import Place
from dev.benchmarks.growth.filling import add_rows
from dev.benchmarks.growth.station import Drained, Keys, drained
from dev.databases import database_url, dsn, execute, fresh_database

T = TypeVar("T")
Tell = Callable[[Drained], None]

LANES = (1, 10, 100)


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    first_round: int
    rounds: int
    commands: int
    """In each drain of `rows` and `lanes`, and in the smaller backlog."""
    rows: Sequence[int]
    backlog: int
    seed: int
    keep: str | None
    """First part of the names of filled databases that are kept, and found again."""


async def rows(place: Place, plan: Plan, tell: Tell) -> None:
    """The same drain on tables of different sizes, with both kinds of keys."""
    async with AsyncExitStack() as stack:
        urls = {
            count: await stack.enter_async_context(_filled(place, count, plan.keep))
            for count in plan.rows
        }
        cases = [(count, keys) for count in plan.rows for keys in get_args(Keys)]
        for count, keys in cases:  # once to warm up: caches, and the pages of new indexes
            await _turn(place, urls[count], _blank("rows", count, keys, plan.commands // 4, 0))
        for number, (count, keys) in _shuffled(cases, plan):
            blank = _blank("rows", count, keys, plan.commands, number)
            tell(await _turn(place, urls[count], blank))


async def backlog(place: Place, plan: Plan, tell: Tell) -> None:
    """A short queue and a long one, on empty tables."""
    for number in range(plan.first_round, plan.first_round + plan.rounds):
        for count in (plan.commands, plan.backlog):
            async with _filled(place, 0, None) as url:
                tell(await drained(place, url, _blank("backlog", count, "random", count, number)))


async def lanes(place: Place, plan: Plan, tell: Tell) -> None:
    """The same drain with few lanes and with many, each with a pool that is just large enough."""
    for number, count in _shuffled(LANES, plan):
        environment = {
            "WORKER_LANES": str(count),
            # And one for the health check.
            "WORKER_DATABASE__POOL_SIZE": str(count + 1),
            "WORKER_DATABASE__MAX_OVERFLOW": "0",
        }
        async with _filled(place, 0, None) as url:
            blank = _blank("lanes", count, "random", plan.commands, number)
            tell(await drained(place, url, blank, environment=environment))


PARTS = {"rows": rows, "backlog": backlog, "lanes": lanes}


def _blank(part: str, size: int, keys: Keys, commands: int, number: int) -> Drained:
    return Drained(
        round=number, part=part, size=size, keys=keys, commands=commands, rate=0, peak_bytes=0
    )


def _shuffled(cases: Sequence[T], plan: Plan) -> list[tuple[int, T]]:
    """Every case once in each round, so that none always has the quiet minute."""
    random = Random(plan.seed + plan.first_round)
    numbers = range(plan.first_round, plan.first_round + plan.rounds)
    return [(number, case) for number in numbers for case in random.sample(cases, len(cases))]


async def _turn(place: Place, url: str, blank: Drained) -> Drained:
    if blank.size == 0:  # empty is what it is to be each time
        await execute(url, "TRUNCATE users, orders, command_ledger")
    # What the turn before has left to be written is not this one's to pay for.
    await execute(url, "CHECKPOINT")
    return await drained(place, url, blank)


@asynccontextmanager
async def _filled(place: Place, count: int, keep: str | None) -> AsyncIterator[str]:
    """A database with so many rows in each table; made, or found as it was kept."""
    name = f"{keep or place.template}_{count}"
    if keep is None or count == 0:
        async with fresh_database(place.server_url, name, template=place.template) as url:
            await add_rows(url, count)
            yield url
        return
    if not await _exists(place, name):
        await execute(place.server_url, f'CREATE DATABASE "{name}" TEMPLATE "{place.template}"')
        await add_rows(database_url(place.server_url, name), count)
    yield database_url(place.server_url, name)


async def _exists(place: Place, name: str) -> bool:
    connection = await asyncpg.connect(dsn(place.server_url))
    try:
        found = await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)
        return found is not None
    finally:
        await connection.close()
