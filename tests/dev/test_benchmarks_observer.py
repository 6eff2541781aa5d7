"""The observer's book-keeping, and the cheap link under it, against what RabbitMQ does."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import uuid
from collections.abc import AsyncIterator

import aio_pika
import pytest

from dev.benchmarks.amqp import Link, open_link
from dev.benchmarks.observer import Observer
from dev.benchmarks.usage import Meter, listener, peak_bytes


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"


def delivery(body: bytes) -> bytes:
    header = struct.pack(">HHQH", 60, 0, len(body), 0)
    return frame(1, bytes((0, 60, 0, 60)) + b"rest") + frame(2, header) + frame(3, body)


async def test_bodies_are_the_same_however_the_bytes_arrive() -> None:
    bodies = [json.dumps({"n": number}).encode() * (number + 1) for number in range(20)]
    stream = b"".join(delivery(body) for body in bodies)
    for step in (1, 7, 1_000, len(stream)):
        link = Link()
        got: list[bytes] = []
        link.receive = lambda _, body, got=got: got.append(body)
        for start in range(0, len(stream), step):
            link.data_received(stream[start : start + step])
        assert got == bodies


async def test_reached_returns_when_the_count_is_there_and_not_before() -> None:
    observer = Observer()
    waiting = asyncio.create_task(observer.reached(2))
    await asyncio.sleep(0)
    observer.receive(1.0, b"a")
    await asyncio.sleep(0)
    assert not waiting.done()
    observer.receive(2.0, b"b")
    await asyncio.wait_for(waiting, 1)
    await observer.reached(2)
    assert observer.times == [1.0, 2.0]


async def test_reached_gives_up_only_when_nothing_comes() -> None:
    observer = Observer()

    async def trickle() -> None:
        for number in range(4):
            await asyncio.sleep(0.1)
            observer.receive(float(number), b"")

    feeding = asyncio.create_task(trickle())
    with pytest.raises(TimeoutError, match=r"4 of 5 events came, then none for 0\.15 s"):
        await observer.reached(5, patience=0.15)
    await feeding


@pytest.fixture
async def queue(broker_url: str) -> AsyncIterator[str]:
    name = f"bench-test-{uuid.uuid4().hex[:8]}"
    async with await aio_pika.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)
        yield name
        await channel.queue_delete(name)


@pytest.mark.servers
async def test_what_is_published_is_confirmed_and_in_the_queue(broker_url: str, queue: str) -> None:
    bodies = [b"%d" % number for number in range(1_200)]
    async with open_link(broker_url) as link:
        await link.publish("", queue, bodies)
    async with await aio_pika.connect(broker_url) as connection:
        found = await (await connection.channel()).get_queue(queue)
        for body in bodies[:3]:
            message = await found.get()
            assert message is not None
            assert message.body == body
            assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


@pytest.mark.servers
async def test_a_message_that_no_queue_takes_is_an_error(broker_url: str) -> None:
    with pytest.raises(ConnectionError, match="NO_ROUTE"):
        async with open_link(broker_url) as link:
            await link.publish("", "no-such-queue", [b"{}"])


def test_confirms_are_counted_whatever_their_order() -> None:
    async def confirm_in_odd_order() -> None:
        link = Link()
        link.published = 6
        done = asyncio.create_task(link.confirmed())
        await asyncio.sleep(0)
        for tag, multiple in ((5, False), (2, True), (6, False), (3, False)):
            link.data_received(frame(1, bytes((0, 60, 0, 80)) + struct.pack(">QB", tag, multiple)))
            await asyncio.sleep(0)
            assert not done.done()
        link.data_received(frame(1, bytes((0, 60, 0, 80)) + struct.pack(">QB", 4, False)))
        await asyncio.wait_for(done, 1)

    asyncio.run(confirm_in_odd_order())


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="only Linux has /proc")
@pytest.mark.servers
def test_cpu_time_is_read_for_this_session_and_both_servers(
    broker_url: str, server_url: str
) -> None:
    session = os.getsid(0)
    meter = Meter(broker_url, server_url)
    before = meter.read(session)
    sum(number * number for number in range(3_000_000))
    used = meter.read(session).since(before)
    assert used.contender is not None
    assert used.contender > 0.02
    assert peak_bytes(session)
    assert meter.read().contender is None


def test_a_server_on_another_machine_has_no_process_here() -> None:
    assert listener("amqp://guest:guest@broker.example:5672/", 5672) is None
    assert Meter("amqp://broker.example/", "postgresql://db.example/x").read().broker is None
