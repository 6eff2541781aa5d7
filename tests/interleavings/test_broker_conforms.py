"""The stand-in for the broker does as RabbitMQ does, wherever the worker relies on it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any

import pytest
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.commands import Basic

from tests.support.interleavings.servers import BrokerUnderTest, RabbitMQ, StandIn, soon
from worker.broker.connection import closed, intake_of, open_channel
from worker.broker.protocol import properties
from worker.broker.publisher import batch as burst_module
from worker.broker.publisher.batch import BurstChannel, open_bursts
from worker.core.messages import Publication
from worker.settings.settings import Settings

Test = Callable[[BrokerUnderTest], Coroutine[Any, Any, None]]


def conforms(test: Test) -> Callable[[type[BrokerUnderTest], str, pytest.MonkeyPatch], None]:
    """Run it against both."""

    @pytest.mark.servers
    @pytest.mark.parametrize("kind", [StandIn, RabbitMQ])
    @wraps(test)
    def run(kind: type[BrokerUnderTest], broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        namespace = f"test-{uuid.uuid4().hex[:12]}"
        settings = Settings.model_validate(
            {"namespace": namespace, "broker": {"url": broker_url}, "database": {"url": NOWHERE}}
        )
        if kind is StandIn:
            monkeypatch.setattr(burst_module, "knows", lambda _: True)
        broker = kind(settings)
        broker.run(test(broker))

    vars(run).pop("__wrapped__")  # pytest would read the signature of that
    return run


NOWHERE = "postgresql+asyncpg://nowhere/x"


@dataclass(frozen=True)
class Came:
    """A delivery."""

    tag: int
    redelivered: bool
    count: int
    body: bytes


class Client:
    """A channel that consumes."""

    def __init__(self, broker: BrokerUnderTest, connection: AbstractConnection) -> None:
        self.broker = broker
        self.connection = connection
        self.came: list[Came] = []
        self.cancelled: list[object] = []

    async def open(self) -> Client:
        self.channel: Channel = await open_channel(self.connection)
        self.channel.on_consumer_cancel_callbacks.add(self.cancelled.append)
        return self

    async def consume(self, prefetch: int, tag: str = "tag") -> None:
        await self.channel.basic_qos(prefetch_count=prefetch)
        intake = intake_of(self.connection)
        assert intake is not None
        intake.sinks[self.channel.number, tag.encode()] = self._on_content
        await self.channel.basic_consume(
            self.broker.topology.commands, self._never, consumer_tag=tag
        )

    def _on_content(
        self, tag: int, redelivered: bool, _: bytes, header: bytes, body: bytes
    ) -> None:
        count = properties.read(header).headers.get("x-delivery-count", 0)
        self.came.append(Came(tag, redelivered, count, body))

    async def _never(self, _: object) -> None:
        raise AssertionError("the sink takes it")

    async def bodies(self, expected: bytes) -> None:
        """These have come, a byte each, and no others do."""
        await soon(lambda: len(self.came) >= len(expected))
        await self.channel.basic_qos(prefetch_count=0)  # a round trip, and what came before it
        assert b"".join(each.body for each in self.came) == expected


async def client(broker: BrokerUnderTest, connection: AbstractConnection) -> Client:
    return await Client(broker, connection).open()


@conforms
async def test_deliveries_stop_at_the_prefetch(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a", b"b", b"c", b"d")
        one = await client(broker, connection)
        await one.consume(2)
        await one.bodies(b"ab")
        await one.channel.basic_ack(1, wait=False)
        await one.bodies(b"abc")
        assert [each.tag for each in one.came] == [1, 2, 3]
        assert not any(each.redelivered or each.count for each in one.came)


@conforms
async def test_a_prefetch_is_each_consumers_own(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a", b"b", b"c", b"d")
        one = await client(broker, connection)
        await one.consume(1)
        await one.bodies(b"a")
        await one.channel.basic_cancel("tag")
        await one.consume(2, "wider")
        await one.bodies(b"abc")
        await one.channel.basic_ack(1, wait=False)
        await one.bodies(b"abc")
        await one.channel.basic_ack(2, wait=False)
        await one.bodies(b"abcd")


@conforms
async def test_a_multiple_ack_covers_all_up_to_its_tag(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a", b"b", b"c", b"d")
        one = await client(broker, connection)
        await one.consume(4)
        await one.bodies(b"abcd")
        await one.channel.basic_ack(3, multiple=True, wait=False)
        await one.channel.close()
        other = await client(broker, connection)
        await other.consume(4)
        await other.bodies(b"d")


@conforms
async def test_what_is_not_acknowledged_comes_again_first_in_order_and_counted(
    broker: BrokerUnderTest,
) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a", b"b", b"c")
        one = await client(broker, connection)
        await one.consume(3)
        await one.bodies(b"abc")
        await one.channel.basic_ack(2, wait=False)
        await one.channel.basic_cancel("tag")
        await broker.put(b"d")
        await one.channel.close()
        other = await client(broker, connection)
        await other.consume(9)
        await other.bodies(b"acd")
        assert [(each.redelivered, each.count) for each in other.came] == [
            (True, 1),
            (True, 1),
            (False, 0),
        ]


@conforms
async def test_what_is_returned_again_comes_after_what_was_returned_with_it(
    broker: BrokerUnderTest,
) -> None:
    """So the broker itself reorders, where connections break one after the other."""
    async with broker.connect() as connection:
        await broker.put(b"a", b"b", b"c")
        one = await client(broker, connection)
        await one.consume(3)
        await one.bodies(b"abc")
        await one.channel.close()
        two = await client(broker, connection)
        await two.consume(1)
        await two.bodies(b"a")
        await two.channel.close()
        three = await client(broker, connection)
        await three.consume(9)
        await three.bodies(b"bca")
        assert [each.count for each in three.came] == [1, 1, 2]


@conforms
async def test_what_a_channel_holds_at_its_end_comes_again_in_its_order(
    broker: BrokerUnderTest,
) -> None:
    """However much it is: what a `nack` returns, RabbitMQ 3.10 puts in the order of a hash."""
    bodies = [bytes([number]) for number in range(200)]
    async with broker.connect() as connection:
        await broker.put(*bodies)
        one = await client(broker, connection)
        await one.consume(len(bodies))
        await one.bodies(b"".join(bodies))
        await one.channel.basic_cancel("tag")
        await one.channel.basic_ack(1, wait=False)
        await one.channel.close()
        two = await client(broker, connection)
        await two.consume(len(bodies))
        await two.bodies(b"".join(bodies[1:]))
        assert {each.count for each in two.came} == {1}


@conforms
async def test_after_a_cancel_nothing_comes(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a")
        one = await client(broker, connection)
        await one.consume(9)
        await one.bodies(b"a")
        await one.channel.basic_cancel("tag")
        await broker.put(b"b")
        await one.bodies(b"a")
        await one.channel.basic_ack(1, wait=False)
        assert not one.cancelled


@conforms
async def test_an_ack_of_what_is_not_there_ends_the_channel(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        await broker.put(b"a")
        one = await client(broker, connection)
        await one.consume(1)
        await one.bodies(b"a")
        await one.channel.basic_ack(7, wait=False)
        assert "unknown delivery tag 7" in await closed(connection, one.channel)
        assert one.channel.is_closed
        other = await client(broker, connection)
        await other.consume(1)
        await other.bodies(b"a")


@conforms
async def test_a_consumer_is_told_that_its_queue_is_gone(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        one = await client(broker, connection)
        await one.consume(1)
        await broker.delete_commands()
        await soon(lambda: one.cancelled)
        assert not one.channel.is_closed


@conforms
async def test_the_end_of_a_connection_ends_its_channels(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        one = await client(broker, connection)
        await connection.close()
        await asyncio.wait([one.channel.closing], timeout=20)
        assert one.channel.is_closed
        with pytest.raises((AMQPError, ChannelInvalidStateError)):
            await one.channel.basic_qos(prefetch_count=1)


async def publish(broker: BrokerUnderTest, channel: Channel, id_: str) -> None:
    await channel.basic_publish(
        b"{}",
        exchange=broker.topology.events,
        routing_key="user.created",
        properties=Basic.Properties(message_id=id_, delivery_mode=2),
        mandatory=True,
        wait=False,
    )


@conforms
async def test_each_publish_is_confirmed(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        channel = await open_channel(connection)
        async with asyncio.timeout(20):
            await asyncio.gather(*(publish(broker, channel, str(n)) for n in range(20)))


@conforms
async def test_what_no_queue_takes_is_returned(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        channel = await open_channel(connection)
        await broker.unbind_events()
        for n in range(2):
            with pytest.raises(PublishError) as caught:
                await publish(broker, channel, str(n))
            assert getattr(caught.value.frame, "routing_key", None) == "user.created"


@conforms
async def test_what_a_queue_refuses_is_told(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        channel = await open_channel(connection)
        await broker.refuse_events()
        for n in range(2):
            with pytest.raises(DeliveryError):
                await publish(broker, channel, str(n))


async def open_both(connection: AbstractConnection) -> tuple[BurstChannel, asyncio.Task[None]]:
    bursts = await open_bursts(connection)
    assert bursts is not None
    return bursts, asyncio.create_task(bursts.write())


def events(broker: BrokerUnderTest, number: int) -> list[Publication]:
    return [Publication(broker.topology.events, "user.created", b"{}") for _ in range(number)]


@conforms
async def test_a_burst_is_confirmed_and_what_no_queue_takes_is_told(
    broker: BrokerUnderTest,
) -> None:
    async with broker.connect() as connection:
        bursts, writing = await open_both(connection)
        many = bursts.send(events(broker, 30), [str(n) for n in range(30)])
        async with asyncio.timeout(20):
            await many.complete
        assert many.faults == {}
        mixed = [*events(broker, 1), Publication("", "nobody", b"{}"), *events(broker, 1)]
        burst = bursts.send(mixed, ["a", "b", "c"])
        async with asyncio.timeout(20):
            await burst.complete
        assert burst.faults.keys() == {1}
        assert isinstance(burst.faults[1], PublishError)
        writing.cancel()


@conforms
async def test_a_burst_that_is_refused_is_told(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        bursts, writing = await open_both(connection)
        await broker.refuse_events()
        burst = bursts.send(events(broker, 3), ["a", "b", "c"])
        async with asyncio.timeout(20):
            await burst.complete
        assert burst.faults.keys() == {0, 1, 2}
        assert all(isinstance(fault, DeliveryError) for fault in burst.faults.values())
        writing.cancel()


@conforms
async def test_a_burst_fails_with_its_connection(broker: BrokerUnderTest) -> None:
    async with broker.connect() as connection:
        bursts, writing = await open_both(connection)
        await connection.close()
        burst = bursts.send(events(broker, 1), ["a"])
        await asyncio.wait([burst.complete], timeout=20)
        assert burst.complete.exception() is not None
        assert burst.unanswered == 0
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
