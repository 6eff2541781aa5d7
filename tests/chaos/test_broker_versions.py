"""What docs/architecture.md and docs/scaling.md say of this version of RabbitMQ is so.

Nothing here is the worker's doing: it is what the worker's design stands on.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aio_pika
import pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractQueue

from dev.servers.rabbitmq import PrivateRabbitMQ
from tests.support.private import lent

pytestmark = pytest.mark.long

KEYS, QUEUES, RESTARTS = 200, 12, 3
QUORUM = {"x-queue-type": "quorum"}


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PrivateRabbitMQ]:
    async with lent(PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))) as server:
        await asyncio.to_thread(server.start)
        yield server


@pytest.fixture
def version(broker: PrivateRabbitMQ) -> tuple[int, int]:
    (major, minor) = re.findall(r"(\d+)\.(\d+)", broker.ctl("version"))[0]
    return int(major), int(minor)


async def returned(
    broker: PrivateRabbitMQ,
    give_back: Callable[[aio_pika.abc.AbstractIncomingMessage], Awaitable[None]],
    limit: int | None,
) -> int:
    """How often a message comes, up to 40 times, when it is given back each time."""
    arguments: dict[str, Any] = QUORUM | ({} if limit is None else {"x-delivery-limit": limit})
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue("returned", durable=True, arguments=arguments)
        await channel.default_exchange.publish(aio_pika.Message(b"", delivery_mode=2), queue.name)
        deliveries = 0
        try:
            while deliveries < 40:
                message = await queue.get(timeout=5, fail=False)
                if message is None:
                    if not await waits(channel, queue):
                        break
                    continue
                deliveries += 1
                await give_back(message)
        finally:
            await queue.delete(if_unused=False, if_empty=False)
    return deliveries


async def waits(channel: AbstractChannel, queue: AbstractQueue) -> bool:
    """Whether the queue holds something, or will in a moment."""
    await asyncio.sleep(0.2)
    told = await channel.declare_queue(queue.name, passive=True)
    return bool(told.declaration_result.message_count)


async def test_what_counts_towards_the_delivery_limit(
    broker: PrivateRabbitMQ, version: tuple[int, int]
) -> None:
    rejected = await returned(broker, lambda message: message.reject(requeue=True), 5)
    assert rejected == 6
    nacked = await returned(broker, lambda message: message.nack(requeue=True), 5)
    assert nacked == (40 if version >= (4, 3) else 6)


async def test_the_delivery_limit_that_a_queue_has_of_itself(
    broker: PrivateRabbitMQ, version: tuple[int, int]
) -> None:
    rejected = await returned(broker, lambda message: message.reject(requeue=True), None)
    assert rejected == (40 if version < (4, 0) else 21)


@pytest.mark.parametrize("type_", ["x-modulus-hash", "x-consistent-hash"])
async def test_which_keys_move_when_the_broker_restarts(
    broker: PrivateRabbitMQ, version: tuple[int, int], type_: str
) -> None:
    moved = 0
    before = await placed(broker, type_)
    for _ in range(RESTARTS):
        await asyncio.to_thread(broker.restart)
        after = await placed(broker, type_)
        moved = max(moved, sum(before[key] != after[key] for key in before))
    if type_ == "x-modulus-hash" or version >= (4, 3):
        assert moved == 0
    else:
        assert moved > KEYS / 2


async def placed(broker: PrivateRabbitMQ, type_: str) -> dict[str, str]:
    """The queue of each key."""
    places: dict[str, str] = {}
    connection = await aio_pika.connect(broker.url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange(type_, type_, durable=True)
        queues = []
        for number in range(QUEUES):
            queue = await channel.declare_queue(f"{type_}.{number}", durable=True)
            await queue.bind(exchange, "1")
            queues.append(queue)
        for number in range(KEYS):
            await exchange.publish(aio_pika.Message(str(number).encode()), f"key-{number}")
        for queue in queues:
            while message := await queue.get(fail=False, no_ack=True):
                places[message.body.decode()] = queue.name
    assert len(places) == KEYS
    return places


async def test_what_becomes_of_a_consumer_that_does_not_answer(
    broker: PrivateRabbitMQ, version: tuple[int, int]
) -> None:
    broker.ctl(
        "eval",
        "[application:set_env(rabbit, Name, 1000)"
        " || Name <- [consumer_timeout, channel_tick_interval, quorum_tick_interval]].",
    )
    what = await asyncio.to_thread(told_to_who_keeps_a_message, broker.url)
    assert what == ("the consumer is cancelled" if version >= (4, 3) else "the channel is closed")


def told_to_who_keeps_a_message(url: str) -> str:
    """What the broker says to a consumer that never acknowledges; empty: nothing in 30 s."""
    cancelled: list[object] = []
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.queue_declare("kept", durable=True, arguments=QUORUM)
        channel.basic_publish("", "kept", b"")
        channel.add_on_cancel_callback(cancelled.append)
        channel.basic_consume("kept", lambda *_: None)
        until = time.monotonic() + 30
        while time.monotonic() < until and not cancelled:
            connection.process_data_events(0.2)
            if channel.is_closed:
                return "the channel is closed"
    finally:
        connection.close()
    return "the consumer is cancelled" if cancelled else ""
