"""Runs the steps of a scenario in one transaction."""

from __future__ import annotations

import asyncio
from random import Random
from time import perf_counter
from typing import assert_never

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from worker.lab.scenario import Scenario
from worker.lab.steps import (
    ITEMS,
    Commit,
    Compute,
    Lasting,
    Leak,
    Lock,
    QueryStep,
    Read,
    Spin,
    Step,
    Think,
    Write,
)

_SLEEP = text("SELECT pg_sleep(:seconds)")
# The rows are locked in the order of their ids, so that transactions do not deadlock.
_CHANGE = (
    'UPDATE "{{}}".{0} AS row SET value = value + 1 FROM'
    ' (SELECT id FROM "{{}}".{0} WHERE id = ANY(:ids) ORDER BY id FOR UPDATE) AS locked'
    " WHERE row.id = locked.id"
)
_COMPUTE = text("SELECT sum(number) FROM generate_series(1, :numbers) AS number")


class LabTransaction:
    """The steps of a scenario, on the tables of one schema."""

    def __init__(self, scenario: Scenario, schema: str) -> None:
        self._steps = scenario.step
        # Not the numbers of the arrivals: a long gap would come before each long transaction, and
        # hardly anybody would wait.
        self._random = Random(f"transactions {scenario.seed}")  # noqa: S311 - no secret
        self._read = _on(schema, 'SELECT sum(value) FROM "{}".items WHERE id = ANY(:ids)')
        self._write = _on(schema, _CHANGE.format("items"))
        self._lock = _on(schema, _CHANGE.format("hot"))
        self._commit = _on(schema, 'INSERT INTO "{}".slow_commits VALUES (:seconds)')

    async def run(self, session: AsyncSession, size: int) -> bool:
        """Take the steps for a group of this size, and commit. Whether the connection is leaked."""
        if await self.take_steps(session, size):
            return True
        await session.commit()
        return False

    async def take_steps(self, session: AsyncSession, size: int) -> bool:
        """Take the steps; the commit is the caller's. Whether the connection is to be leaked.

        As in the worker, rows of a whole group are read and changed in one statement.
        """
        for step in self._steps:
            times = self._times(step, size)
            if times and isinstance(step, Leak):
                return True
            if times:
                await self._do(step, times, session)
        return False

    def _times(self, step: Step, size: int) -> int:
        """How many of the group do this step."""
        if step.share == 1:
            return size
        return sum(self._random.random() < step.share for _ in range(size))

    async def _do(self, step: Step, times: int, session: AsyncSession) -> None:
        match step:
            case QueryStep():
                await session.execute(_SLEEP, {"seconds": self._drawn(step, times)})
            case Commit():
                await session.execute(self._commit, {"seconds": step.draw(self._random)})
            case Compute():
                await session.execute(_COMPUTE, {"numbers": step.numbers * times})
            case Read():
                await session.execute(self._read, {"ids": self._ids(step.rows * times, ITEMS)})
            case Write():
                await session.execute(self._write, {"ids": self._ids(step.rows * times, ITEMS)})
            case Lock():
                await session.execute(self._lock, {"ids": self._ids(times, step.rows)})
            case Think():
                await asyncio.sleep(self._drawn(step, times))
            case Spin():
                until = perf_counter() + self._drawn(step, times)
                while perf_counter() < until:
                    pass
            case Leak():  # pragma: no cover - `run` has seen to it
                pass
            case _:
                assert_never(step)

    def _drawn(self, step: Lasting, times: int) -> float:
        return sum(step.draw(self._random) for _ in range(times))

    def _ids(self, count: int, rows: int) -> list[int]:
        return [self._random.randint(1, rows) for _ in range(count)]


def _on(schema: str, statement: str) -> TextClause:
    return text(statement.replace("{}", schema))
