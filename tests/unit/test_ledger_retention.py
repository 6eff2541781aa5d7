"""Pruning goes on for ever, whatever the database does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from tests.support.fakes import turns, until
from worker.database import ledger_retention
from worker.database.engine import Sessions
from worker.database.ledger_retention import Pruned, keep_pruned

THEN = datetime(2026, 11, 1, tzinfo=UTC)


class Database:
    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.asked = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        yield


@pytest.mark.parametrize(
    "fault",
    [
        OperationalError("DELETE", {}, Exception("gone\nwith details")),
        ConnectionRefusedError("refused"),
        TimeoutError(),
        ConnectionResetError(),
        OSError(""),
    ],
    ids=repr,
)
async def test_a_database_that_is_away_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    async def prune(*_: object, **__: object) -> Pruned:
        return Pruned(0, THEN)

    monkeypatch.setattr(ledger_retention, "prune", prune)
    database = Database()
    database.fault = fault
    task = asyncio.create_task(
        keep_pruned(cast(Sessions, database), timedelta(days=7), every_seconds=0)
    )
    await until(lambda: task.done() or database.asked > 2)
    assert not task.done(), task
    database.fault = None
    await until(lambda: task.done() or database.asked > 4)
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_batches_follow_each_other_until_one_is_not_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = [10, 10, 3]
    batches: list[int] = []
    begun: list[datetime] = []

    async def prune(_: object, older_than: timedelta, *, batch: int, since: datetime) -> Pruned:
        assert older_than == timedelta(days=7)
        begun.append(since)
        batches.append(left.pop(0) if left else 0)
        return Pruned(batches[-1], THEN + timedelta(hours=len(batches)))

    monkeypatch.setattr(ledger_retention, "prune", prune)
    options: dict[str, Any] = {"every_seconds": 3_600, "batch": 10, "pause_seconds": 0}
    task = asyncio.create_task(
        keep_pruned(cast(Sessions, Database()), timedelta(days=7), **options)
    )
    await until(lambda: not left)
    await turns()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert batches == [10, 10, 3]
    # Each where the one before ended.
    assert begun[1:] == [THEN + timedelta(hours=1), THEN + timedelta(hours=2)]
