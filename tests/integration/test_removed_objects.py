"""What is removed from the broker beneath a running worker comes back, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.exceptions import AMQPError, ChannelPreconditionFailed, PublishError

from tests.support.harness import Harness, eventually
from worker.broker import topology_watch
from worker.broker.topology import Topology
from worker.broker.topology_watch import MISSING, OBJECT, STARVED
from worker.service.service import Service
from worker.settings.settings import BrokerSettings

Remove = Callable[[AbstractChannel, str], Awaitable[object]]


async def unbind(channel: AbstractChannel, queue: str, exchange: str, key: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).unbind(exchange, key)


async def unbind_partitions(channel: AbstractChannel, name: str) -> None:
    for number in (1, 2, 3):
        await unbind(channel, f"{name}.commands.{number}", f"{name}.partitions", "1")


async def unbind_partitioner(channel: AbstractChannel, name: str) -> None:
    exchange = await channel.get_exchange(f"{name}.partitions", ensure=False)
    await exchange.unbind(f"{name}.commands", "#")


OBJECTS: dict[str, Remove] = {
    "exchange commands": lambda channel, name: channel.exchange_delete(f"{name}.commands"),
    "exchange events": lambda channel, name: channel.exchange_delete(f"{name}.events"),
    "queue commands": lambda channel, name: channel.queue_delete(f"{name}.commands"),
    "queue events": lambda channel, name: channel.queue_delete(f"{name}.events"),
    "queue dead-letters": lambda channel, name: channel.queue_delete(f"{name}.dead-letters"),
}
BINDINGS: dict[str, Remove] = {
    "binding of the commands": lambda channel, name: unbind(
        channel, f"{name}.commands", f"{name}.commands", "#"
    ),
    "binding of the stream": lambda channel, name: unbind(
        channel, f"{name}.events", f"{name}.events", "#"
    ),
}
OF_PARTITIONS: dict[str, Remove] = {
    "exchange partitions": lambda channel, name: channel.exchange_delete(f"{name}.partitions"),
    "exchange commands": OBJECTS["exchange commands"],
    "queue commands.2": lambda channel, name: channel.queue_delete(f"{name}.commands.2"),
    "bindings of the partitions": unbind_partitions,
    "binding of the partitions' exchange": unbind_partitioner,
}


class Traffic:
    """Commands for as long as it is entered; of each is known whether the broker took it."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self.going = asyncio.Event()
        self.going.set()
        self.accepted: list[str] = []

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.create_task(self._publish())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _publish(self) -> None:
        while True:
            # The broker ends a connection whose publish meets a queue that is just being deleted.
            with suppress(AMQPError, *CONNECTION_EXCEPTIONS):
                async with await aio_pika.connect(self._harness.settings.broker.urls[0]) as link:
                    channel = await link.channel(on_return_raises=True)
                    while True:
                        await self._publish_one(channel)
            await asyncio.sleep(0.05)

    async def _publish_one(self, channel: AbstractChannel) -> None:
        await self.going.wait()
        id_, name = uuid.uuid4().hex, f"{self._harness.settings.namespace}.commands"
        data = {"username": id_, "email": f"{id_}@example.com"}
        body = json.dumps({"id": id_, "type": "user.create", "data": data}).encode()
        exchange = await channel.get_exchange(name, ensure=False)
        persistent = aio_pika.DeliveryMode.PERSISTENT
        message = aio_pika.Message(body, delivery_mode=persistent)
        await exchange.publish(message, id_, mandatory=True)
        self.accepted.append(id_)
        await asyncio.sleep(0.02)

    async def all_done(self) -> bool:
        """Whether every command that the broker took has been carried out and acknowledged."""
        rows = await self._harness.rows("SELECT username FROM users")
        return set(self.accepted) <= {row["username"] for row in rows}

    async def is_taken(self, *, more: int = 5) -> None:
        """Return once the broker takes commands, and these are carried out."""
        enough = len(self.accepted) + more
        await eventually(lambda: len(self.accepted) >= enough, within=10)


async def is_kept(harness: Harness, ids: Sequence[str]) -> bool:
    """Whether the stream, if there is one, soon holds an event of one of these commands."""
    came = asyncio.Event()

    async def take(message: AbstractIncomingMessage) -> None:
        if message.headers.get("commandid") in ids:
            came.set()

    with suppress(AMQPError, TimeoutError):
        async with harness.connection.channel() as channel:
            await channel.set_qos(60_000)  # none is acknowledged
            stream = await channel.get_queue(f"{harness.settings.namespace}.events", ensure=False)
            await stream.consume(take, arguments={"x-stream-offset": "first"})
            await asyncio.wait_for(came.wait(), 0.5)
    return came.is_set()


async def is_whole(harness: Harness, traffic: Traffic) -> None:
    """Return once commands come, events are kept and dead letters have a place."""
    await traffic.is_taken()
    sent = len(traffic.accepted)

    await eventually(lambda: is_kept(harness, traffic.accepted[sent:]), within=10)
    async with harness.connection.channel() as channel:
        exchange = await channel.get_exchange(f"{harness.settings.namespace}.commands")
        await exchange.publish(aio_pika.Message(b"{}"), "any")

    async def set_aside() -> bool:
        with suppress(AMQPError):
            return await harness.waiting("dead-letters") > 0
        return False

    await eventually(set_aside, within=10)


def counted(service: Service) -> dict[str, float]:
    readings = dict(service._topology_watch.read())[MISSING]
    return {attributes[OBJECT]: float(value) for attributes, value in readings}  # type: ignore[arg-type]


@asynccontextmanager
async def removed(
    harness: Harness, remove: Remove, *, rests: bool = False, **changes: Any
) -> AsyncIterator[Any]:
    """A worker with traffic, from which something was just removed.

    The traffic `rests` meanwhile where a queue goes, and with it the commands that it holds.
    """
    async with harness.worker(**changes) as service, Traffic(harness) as traffic:
        await traffic.is_taken()
        if rests:
            traffic.going.clear()
            await asyncio.sleep(0.1)  # one may be on its way
        await eventually(traffic.all_done)
        async with harness.connection.channel() as channel:
            await remove(channel, harness.settings.namespace)
        traffic.going.set()
        yield service, traffic
        await eventually(traffic.all_done)
        await eventually(lambda: service.health.ready)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology_watch, "LOOK_SECONDS", 0.2)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", [*OBJECTS, *BINDINGS])
async def test_what_is_removed_comes_back(harness: Harness, what: str) -> None:
    remove = (OBJECTS | BINDINGS)[what]
    async with removed(harness, remove, rests=what == "queue commands") as (service, traffic):
        await is_whole(harness, traffic)
        # It may be made anew before it is missed, by who meets that first.
        assert set(counted(service).values()) <= {1.0}


async def replace_commands(channel: AbstractChannel, name: str) -> None:
    """As fast as a script does; RabbitMQ 3.10 then cancels no consumer, and delivers nothing."""
    topology = Topology(name, BrokerSettings())
    await channel.queue_delete(topology.commands)
    arguments = dict(topology.queues[topology.commands])
    queue = await channel.declare_queue(topology.commands, durable=True, arguments=arguments)
    await queue.bind(topology.commands, "#")


@pytest.mark.usefixtures("often")
async def test_who_is_given_nothing_of_what_waits_subscribes_anew(harness: Harness) -> None:
    taken = removed(harness, replace_commands, rests=True, prefetch=2)
    async with taken as (service, traffic):
        await is_whole(harness, traffic)
        await eventually(traffic.all_done)
        ((_, starved),) = dict(service._topology_watch.read())[STARVED]

    assert starved <= 1  # RabbitMQ 4.3 tells consumers even so


@pytest.mark.long
@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", OF_PARTITIONS)
async def test_what_is_removed_of_partitions_comes_back(harness: Harness, what: str) -> None:
    rests = what == "queue commands.2"
    async with removed(harness, OF_PARTITIONS[what], rests=rests, partitions=3) as (_, traffic):
        await is_whole(harness, traffic)


@pytest.mark.long
async def test_all_of_it_at_once_is_back_within_ten_seconds(harness: Harness) -> None:
    async def remove_all(channel: AbstractChannel, name: str) -> None:
        for remove in OBJECTS.values():
            await remove(channel, name)

    async with removed(harness, remove_all, rests=True) as (service, traffic):
        begun = time.monotonic()
        await is_whole(harness, traffic)
        await eventually(lambda: service.health.ready)
        assert time.monotonic() - begun < 10


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    "what",
    [
        pytest.param(each, marks=[] if each == "queue events" else pytest.mark.long)
        for each in OBJECTS
    ],
)
async def test_what_may_not_be_declared_is_told_until_it_is_there_again(
    harness: Harness, what: str
) -> None:
    topology = Topology.of(harness.settings)
    await topology.ensure(harness.connection)
    broker = harness.settings.broker.model_dump() | {"declare": False}
    name = what.replace(" ", f" {harness.settings.namespace}.")
    kind, _, only = name.partition(" ")
    rests = what == "queue commands"
    async with removed(harness, OBJECTS[what], rests=rests, broker=broker) as (service, traffic):
        parts = [service.health.part(part) for part in ("topology", "commands", "events")]
        told = f"The {kind} {only!r} does not exist"
        await eventually(lambda: any(told in (part.reason or "") for part in parts))
        since = [part.since for part in parts if not part.ready]
        await asyncio.sleep(1)  # five looks
        assert not service.health.ready
        assert set(since) <= {part.since for part in parts}

        await topology.ensure(harness.connection)
        await eventually(lambda: service.health.ready, within=10)
        await is_whole(harness, traffic)
        assert counted(service).get(name, 1) == 1


@pytest.mark.usefixtures("often")
async def test_other_arguments_under_a_running_worker_are_told(harness: Harness) -> None:
    name = f"{harness.settings.namespace}.dead-letters"

    async def replace(_: AbstractChannel, __: str) -> None:
        async def replaced() -> bool:
            with suppress(ChannelPreconditionFailed):  # the watch was faster
                async with harness.connection.channel() as channel:
                    await channel.queue_delete(name)
                    arguments: dict[str, Any] = {"x-queue-type": "quorum"}
                    await channel.declare_queue(name, durable=True, arguments=arguments)
                    return True
            return False

        await eventually(replaced)

    async with removed(harness, replace) as (service, _):
        part = service.health.part("topology")
        await eventually(lambda: "x-" in (part.reason or ""))
        reason = str(part.reason)
        async with harness.connection.channel() as channel:
            await channel.queue_delete(name)

    assert f"The queue {name!r} exists with other arguments" in reason


@pytest.mark.usefixtures("often")
async def test_who_has_one_queue_leaves_the_partitions_of_others_alone(harness: Harness) -> None:
    name = harness.settings.namespace
    async with harness.worker() as service, harness.connection.channel() as channel:
        part = service.health.part("topology")
        # Others come after it has looked.
        await eventually(lambda: service._topology_watch._consumers is not None)
        async with harness.worker(partitions=3):
            await eventually(lambda: "WORKER_PARTITIONS=1" in (part.reason or ""))
        await unbind_partitioner(channel, name)
        await asyncio.sleep(1)  # five looks
        with pytest.raises(PublishError):  # to bind its queue again would undo the sharing out
            await harness.send("user.delete", target={"id": 1})
        for number in (1, 2, 3):
            await channel.queue_delete(f"{name}.commands.{number}")
        await eventually(lambda: part.ready)
        await harness.ask("user.delete", target={"id": 1})
