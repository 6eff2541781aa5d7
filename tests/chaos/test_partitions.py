"""G4 across workers: partitions are shared, move when a worker dies, and keep the order."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from dev.servers.rabbitmq import PrivateRabbitMQ
from dev.worker_processes import WorkerProcess
from tests.chaos.test_kill import check_events, check_rows, mixed_commands
from tests.chaos.test_poison import survive_a_poison
from tests.conftest import make_settings
from tests.support.harness import Harness, eventually
from worker.broker.refused_declaration import PLUGIN_OF
from worker.core.errors import Misconfigured
from worker.service.service import Service

PARTITIONS = 8
COMMANDS = 1_200


class KeyedHarness(Harness):
    """Gives the ordering key as the routing key, and one of its own to a command without."""

    async def publish(
        self, body: bytes | str | Mapping[str, Any], *, routing_key: str = "", **properties: Any
    ) -> None:
        if isinstance(body, Mapping):
            routing_key = body.get("key") or body["id"]
        await super().publish(body, routing_key=routing_key, **properties)


@pytest.fixture
async def partitioned(own_broker: PrivateRabbitMQ, database: str) -> AsyncIterator[Harness]:
    """A harness on a broker that has the plug-in, for workers with eight partitions."""
    await asyncio.to_thread(own_broker.start)
    settings = make_settings(own_broker.url, database).model_copy(update={"partitions": PARTITIONS})
    async with KeyedHarness(settings) as harness:
        yield harness


@pytest.fixture
def partitioned_environment(partitioned: Harness, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a `worker` process on the same broker."""
    settings = partitioned.settings
    return environment | {
        "WORKER_BROKER__URL": settings.broker.url.get_secret_value(),
        "WORKER_DATABASE__URL": settings.database.url.get_secret_value(),
        "WORKER_NAMESPACE": settings.namespace,
        "WORKER_PARTITIONS": str(PARTITIONS),
    }


def active(worker: Service) -> set[str]:
    return set(worker._consumer.partitions.active)


async def publish(harness: Harness, commands: list[dict[str, Any]]) -> None:
    """In order, the ordering key as the routing key; each confirmed."""
    for start in range(0, len(commands), 100):
        some = commands[start : start + 100]
        await asyncio.gather(*(harness.publish(it) for it in some))


async def all_answered(harness: Harness, commands: list[dict[str, Any]], *, within: float) -> None:
    ids = {command["id"] for command in commands}
    await eventually(lambda: ids == {e.command_id for e in harness.events}, within=within)
    for queue in ("commands", *harness.partitions):
        assert await harness.waiting(queue) == 0


@pytest.mark.long
async def test_each_of_two_workers_has_half_of_the_partitions_and_a_stop_moves_them(
    partitioned: Harness,
) -> None:
    commands = mixed_commands(seed=5)[:COMMANDS]
    async with partitioned.worker() as first:
        async with partitioned.worker() as second:
            publishing = asyncio.create_task(publish(partitioned, commands))
            half = PARTITIONS // 2
            await eventually(lambda: (len(active(first)), len(active(second))) == (half, half))
            assert not active(first) & active(second)
        await eventually(lambda: len(active(first)) == PARTITIONS)
        await publishing
        await all_answered(partitioned, commands, within=30)
    await check_events(partitioned, commands)
    await check_rows(partitioned, commands)


@pytest.mark.long
async def test_order_is_kept_while_partitions_move_all_the_time(partitioned: Harness) -> None:
    commands = mixed_commands(seed=6)[:COMMANDS]
    chosen = random.Random(2)
    moves = 0
    async with partitioned.worker() as first, partitioned.worker() as second:
        publishing = asyncio.create_task(publish(partitioned, commands))
        while not publishing.done():
            for worker in (first, second):
                for partition in worker._consumer.partitions._partitions:
                    if partition.active and chosen.random() < 0.05:
                        partition.release()
                        moves += 1
            await asyncio.sleep(0.05)
        await all_answered(partitioned, commands, within=30)
    assert moves > 10
    await check_events(partitioned, commands)
    await check_rows(partitioned, commands)


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.long)])
async def test_a_lost_worker_s_partitions_go_to_the_other_in_order(
    partitioned: Harness, partitioned_environment: dict[str, str], tmp_path: Path, how: str
) -> None:
    """A frozen one knows nothing of it: it goes on with what it holds when it wakes up."""
    commands = mixed_commands(seed=7)[:COMMANDS]
    environment = partitioned_environment | {
        "WORKER_BROKER__HEARTBEAT_SECONDS": "2",
        "WORKER_DATABASE__LOCK_TIMEOUT_SECONDS": "2",
        # Before the other has waited five times for the locks of the frozen one.
        "WORKER_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT_SECONDS": "4",
    }
    lost, other = (WorkerProcess(environment, tmp_path / f"{name}.log") for name in ("1", "2"))
    try:
        for worker in (lost, other):
            await worker.start()
        await partitioned.subscribe()
        publishing = asyncio.create_task(publish(partitioned, commands))
        await eventually(lambda: "letting go" in lost.log())
        await eventually(lambda: len(partitioned.events) > COMMANDS // 3, within=60)
        await lost.kill() if how == "killed" else lost.freeze()
        await publishing
        await all_answered(partitioned, commands, within=60)
        if how == "frozen":
            lost.thaw()
            assert await lost.stop() == 0
        assert await other.stop() == 0
    finally:
        for worker in (lost, other):
            await worker.end()
    await check_events(partitioned, commands)
    await check_rows(partitioned, commands)


@pytest.mark.long
async def test_a_command_that_kills_its_worker_takes_no_innocent_with_it_in_any_partition(
    partitioned: Harness, partitioned_environment: dict[str, str], tmp_path: Path
) -> None:
    await survive_a_poison(partitioned, partitioned_environment, tmp_path)


async def test_commands_of_one_key_go_to_one_partition(partitioned: Harness) -> None:
    async with partitioned.worker():
        pass
    for number in range(200):
        key = f"key-{number % 50}"
        await partitioned.publish({"key": key})
    seen: dict[str, set[str]] = defaultdict(set)
    for name in partitioned.partitions:
        for message in await partitioned.taken_from(name):
            seen[message.json["key"]].add(name)

    assert len(seen) == 50
    assert {len(queues) for queues in seen.values()} == {1}
    assert len(set.union(*seen.values())) == PARTITIONS


async def test_the_plain_queue_is_served_too(partitioned: Harness) -> None:
    """What is published straight to it, or was left in it by one partition, is not abandoned."""
    async with partitioned.worker():
        body = {"id": "direct", "type": "user.create", "data": {"username": "a", "email": "a@b.de"}}
        await partitioned.channel.default_exchange.publish(
            aio_pika.Message(json.dumps(body).encode()),
            f"{partitioned.settings.namespace}.commands",
        )
        assert (await partitioned.event("direct")).routing_key == "user.created"


async def test_a_broker_without_the_plug_in_is_told_what_to_enable(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PLUGIN_OF, "x-unheard-of", "rabbitmq_unheard_of")
    broker = harness.settings.broker.model_copy(update={"partition_exchange": "x-unheard-of"})
    settings = harness.settings.model_copy(update={"partitions": 2, "broker": broker})
    with pytest.raises(Misconfigured, match="rabbitmq-plugins enable rabbitmq_unheard_of"):
        await asyncio.wait_for(Service(settings).run(), 30)


@pytest.mark.parametrize("fewer", [1, PARTITIONS - 1])
async def test_a_worker_that_would_leave_partitions_unserved_says_so_and_changes_nothing(
    partitioned: Harness, fewer: int
) -> None:
    """Not even the way of the commands: led to the shared queue as well, they lose their order."""
    async with partitioned.worker():
        pass
    settings = partitioned.settings.model_copy(update={"partitions": fewer})
    with pytest.raises(Misconfigured, match=rf"commands\.{fewer + (fewer > 1)}'.*partitions apply"):
        await asyncio.wait_for(Service(settings).run(), 30)
    await partitioned.send("user.create", id="one", data={"username": "a", "email": "a@b.de"})
    queues = ("commands", *partitioned.partitions)
    waiting = {queue: await partitioned.waiting(queue) for queue in queues}
    assert sum(waiting.values()) == 1, waiting
    assert waiting["commands"] == 0


async def test_one_partition_becomes_several_and_nothing_is_left_behind(
    partitioned: Harness,
) -> None:
    namespace = partitioned.settings.namespace
    async with partitioned.worker(partitions=1):
        pass
    await partitioned.send("user.create", id="old", data={"username": "a", "email": "a@b.de"})
    async with partitioned.worker():
        assert (await partitioned.event("old")).routing_key == "user.created"
        await partitioned.send("user.create", id="new", data={"username": "b", "email": "b@b.de"})
        assert (await partitioned.event("new")).routing_key == "user.created"
    assert [e.command_id for e in partitioned.events] == ["old", "new"], namespace
