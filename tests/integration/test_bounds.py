"""G8: what is bounded, and how the bounds are told."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.support.harness import Harness, eventually
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured
from worker.database import ledger_retention
from worker.database.engine import make_engine, make_sessions


async def test_every_queue_has_a_bound(harness: Harness) -> None:
    topology = Topology(harness.settings.namespace, harness.settings.broker)
    for arguments in topology.queues.values():
        assert arguments["x-max-length-bytes"]
    assert topology.queues[topology.events]["x-max-age"] == "604800s"
    assert topology.queues[topology.dead_letters]["x-message-ttl"] == 30 * 86_400_000
    assert topology.queues[topology.commands]["x-delivery-limit"] == 20
    async with harness.worker():
        pass


async def test_other_arguments_are_told_and_how_to_mend_them(harness: Harness) -> None:
    async with harness.worker():
        pass
    broker = harness.settings.broker.model_copy(update={"delivery_limit": 30})
    topology = Topology(harness.settings.namespace, broker)
    async with connect(broker, "test") as connection:
        with pytest.raises(
            Misconfigured,
            match=r"x-delivery-limit is '20', this worker declares '30'.*DELIVERY_LIMIT",
        ):
            await topology.ensure(connection)


async def test_without_the_right_to_declare_what_is_missing_is_told(harness: Harness) -> None:
    broker = harness.settings.broker.model_copy(update={"declare": False})
    topology = Topology(harness.settings.namespace, broker)
    async with connect(broker, "test") as connection:
        with pytest.raises(Misconfigured, match=r"does not exist.*WORKER_BROKER__DECLARE=true"):
            await topology.ensure(connection)
    async with harness.worker():
        pass
    async with connect(broker, "test") as connection:
        await topology.ensure(connection)
    async with harness.worker(broker=broker.model_dump()):
        assert (await harness.ask("user.paint")).routing_key == "command.rejected"


async def test_the_ledger_forgets_what_is_older_than_its_retention(harness: Harness) -> None:
    await harness.rows(
        "INSERT INTO command_ledger"
        " SELECT n::text, sha256(''), 'done', gen_random_uuid(), 'x', '{}',"
        " now() - n * interval '1 hour' FROM generate_series(1, 5000) AS n"
    )
    engine = make_engine(harness.settings.database)
    task = asyncio.create_task(
        ledger_retention.keep_pruned(
            make_sessions(engine), timedelta(hours=1000.5), pause_seconds=0
        )
    )

    async def left() -> bool:
        (row,) = await harness.rows("SELECT count(*), max(command_id::int) FROM command_ledger")
        return (row["count"], row["max"]) == (1000, 1000)

    await eventually(left)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # The number might only have been passed on the way down.
    async with make_sessions(engine).begin() as session:
        assert (await ledger_retention.prune(session, timedelta(hours=1000.5))).count == 0
    assert await left()
    await engine.dispose()


async def test_pruning_forgets_nothing_within_the_retention(harness: Harness) -> None:
    await harness.rows(
        "INSERT INTO command_ledger"
        " SELECT n::text, sha256(''), 'done', gen_random_uuid(), 'x', '{}',"
        " now() - n * interval '1 day' FROM generate_series(1, 10) AS n"
    )
    engine = make_engine(harness.settings.database)
    async with make_sessions(engine).begin() as session:
        assert (await ledger_retention.prune(session, timedelta(days=6.5))).count == 4
    await engine.dispose()
    left = await harness.rows("SELECT max(command_id::int) FROM command_ledger")
    assert left == [{"max": 6}]


async def test_a_backlog_is_not_held_in_memory(harness: Harness) -> None:
    async with harness.worker():
        pass
    await harness.send_all({"id": f"{n}", "type": "user.paint"} for n in range(500))
    held: list[int] = []
    async with harness.worker(prefetch=20, lanes=1, group_size=5) as service:

        def look(*_: Any) -> bool:
            lane = service._lanes._lanes[0]
            held.append(len(lane._waiting))
            return len({event.command_id for event in harness.events}) == 500

        await eventually(look, within=60, every=0.001)
    assert 0 < max(held) <= 20
