"""G7: the signals, on a worker that is a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from dev.worker_processes import WorkerProcess
from tests.support.harness import Harness, creates, eventually


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_in_full_swing_ends_it_in_order(
    harness: Harness, environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    environment |= {"WORKER_PREFETCH": "64", "WORKER_GROUP_SIZE": "4"}
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    await worker.start()
    try:
        await harness.subscribe()
        ids = await harness.send_all(creates(range(300)))
        await harness.event(ids[20])
        worker.process.send_signal(number)
        assert await asyncio.wait_for(worker.process.wait(), 20) == 0

        answered = {event.command_id for event in harness.events}
        (rows,) = await harness.rows("SELECT count(*) FROM users")
        assert rows["count"] == len(answered)
        # Nothing was in hand any more, so nothing that was answered comes again.
        assert await eventually(lambda: _all_there(harness, len(ids)))
        # Ready: if all was answered before, the stop below would meet a process that begins.
        await worker.start()
        for id_ in ids:
            await harness.event(id_)
        assert len(harness.events) == len(ids)
        assert await worker.stop() == 0
    finally:
        await worker.end()


async def test_what_was_not_begun_at_a_stop_keeps_its_order(harness: Harness) -> None:
    """With a full window: of few commands RabbitMQ keeps the order whatever is done to them."""
    users, ratings = 8, 120
    async with harness.worker():  # declares the queue
        pass
    await harness.send_all(
        {"id": f"{user}-0", "type": "user.create", **of_user(user)} for user in range(users)
    )
    await harness.send_all(
        {
            "id": f"{user}-{rating}",
            "type": "user.update",
            "key": f"u{user}",
            "target": {"username": f"u{user}"},
            "data": {"rating": rating},
        }
        for rating in range(1, ratings + 1)
        for user in range(users)
    )
    total = users * (1 + ratings)
    for _ in range(2):
        async with harness.worker(group_size=1) as worker:
            await harness.next_event(after=len(harness.events))
            worker.stop()
        assert len(harness.events) < total - 100, "the window was not full at the stop"
    async with harness.worker():
        await harness.next_event(after=total - 1)
    for user in range(users):
        ids = [event.command_id for event in harness.events if event.command_id is not None]
        assert [id_ for id_ in ids if id_.startswith(f"{user}-")] == [
            f"{user}-{rating}" for rating in range(ratings + 1)
        ]


def of_user(number: int) -> dict[str, Any]:
    data = {"username": f"u{number}", "email": f"u{number}@example.com"}
    return {"data": data, "key": f"u{number}"}


async def _all_there(harness: Harness, total: int) -> bool:
    answered = {event.command_id for event in harness.events}
    return await harness.waiting() + len(answered) == total


async def test_a_second_signal_ends_it_at_once(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"WORKER_ENTITIES": "tests.support.probes"}
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    await worker.start()
    try:
        await harness.subscribe()
        await harness.ask("user.create", data={"username": "ann", "email": "ann@example.com"})
        await harness.send("user.linger", target={"username": "ann"})
        await eventually(lambda: _in_transaction(harness))
        worker.process.terminate()
        await eventually(lambda: '"stopping"' in worker.log())
        assert worker.process.returncode is None
        worker.process.terminate()
        assert await asyncio.wait_for(worker.process.wait(), 5) != 0
        assert await eventually(harness.waiting) == 1
    finally:
        await worker.end()


async def _in_transaction(harness: Harness) -> bool:
    rows = await harness.rows(
        "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
        " AND datname = current_database()"
    )
    return bool(rows)


@pytest.mark.long
async def test_a_frozen_worker_goes_on_where_it_was(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {"WORKER_BROKER__HEARTBEAT_SECONDS": "2"}
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    other = WorkerProcess(environment, tmp_path / "other.log")
    await worker.start()
    try:
        await harness.subscribe()
        before = await harness.send("user.create", data={"username": "a", "email": "a@b.de"})
        await harness.event(before)
        worker.freeze()
        # The broker delivers what the frozen one holds to another, once it misses heartbeats.
        ids = await harness.send_all(creates(range(20)))
        await other.start()
        for id_ in ids:
            await harness.event(id_, within=40)
        worker.thaw()
        after = await harness.send("user.update", target={"username": "a"}, data={"rating": 1})
        await harness.event(after)
        assert await worker.stop() == 0
        assert await other.stop() == 0
    finally:
        await worker.end()
        await other.end()
    (rows,) = await harness.rows("SELECT count(*) FROM users")
    assert rows["count"] == 21
    bodies = {(event.command_id, event.body) for event in harness.events}
    assert len(bodies) == 22


async def test_servers_that_are_away_at_the_start_are_waited_for(
    harness: Harness, environment: dict[str, str], tmp_path: Path
) -> None:
    environment |= {
        "WORKER_BROKER__URL": "amqp://guest:hunter2@127.0.0.1:1/",
        "WORKER_DATABASE__URL": "postgresql+asyncpg://postgres:hunter2@127.0.0.1:1/x",
    }
    worker = WorkerProcess(environment, tmp_path / "worker.log")
    await worker.start(ready=False)
    try:
        await eventually(lambda: worker.log().count("cannot be reached") >= 3)
        lines = [json.loads(line) for line in worker.log().splitlines()]
        assert {line["part"] for line in lines if line["event"] == "not ready"} == {
            "database",
            "events",
            "commands",
        }
        assert worker.process.returncode is None
        assert await worker.stop() == 0
    finally:
        await worker.end()
    assert "hunter2" not in worker.log()
