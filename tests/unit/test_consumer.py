"""Subscriptions: what is made of a message, how suspects are met, how taking ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.support.fakes import turns, until
from worker.broker.consumer import subscription as subscription_module
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.consumer import Consumer
from worker.broker.consumer.subscription import SUSPECT_DELIVERIES, read_delivery
from worker.broker.protocol.frame_reader import UNREADABLE_HEADER
from worker.broker.topology import Topology
from worker.core.errors import Unreachable
from worker.core.messages import Delivery
from worker.settings.settings import BrokerSettings
from worker.telemetry.readiness import Component

# Of the default limit of 20 deliveries, half convicts, and a bit more than half of that isolates.
ALONE_DELIVERIES = 6


def message(
    tag: int = 1, *, redelivered: bool = False, body: bytes = b"{}", **properties: Any
) -> DeliveredMessage:
    return DeliveredMessage(
        delivery=Basic.Deliver("ctag", tag, redelivered, "worker.commands", "any"),
        header=ContentHeader(body_size=len(body), properties=Basic.Properties(**properties)),
        body=body,
        channel=cast(Any, None),
    )


class FakeChannel:
    """A channel whose deliveries the test makes, one after the other."""

    def __init__(self) -> None:
        self.on_consumer_cancel_callbacks: set[Callable[[object], object]] = set()
        self.callback: Callable[[DeliveredMessage], Any] | None = None
        self.prefetches: list[int] = []
        self.calls: list[str] = []
        self.on_cancel: Exception | None = None
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def basic_qos(self, *, prefetch_count: int) -> None:
        self.prefetches.append(prefetch_count)

    async def basic_consume(
        self, queue: str, callback: Any, *, consumer_tag: str
    ) -> Basic.ConsumeOk:
        assert queue == "worker.commands"
        self.calls.append("consume")
        self.callback = callback
        return Basic.ConsumeOk(consumer_tag)

    async def basic_cancel(self, tag: str) -> None:
        self.calls.append("cancel")
        if self.on_cancel is not None:
            raise self.on_cancel

    async def basic_ack(self, tag: int, multiple: bool = False, wait: bool = True) -> None:
        self.calls.append(f"ack {tag}")

    async def close(self) -> None:
        self.calls.append("close")

    async def deliver(self, *given: DeliveredMessage) -> None:
        """One after the other, with nothing in between."""
        assert self.callback is not None
        for each in given:
            await self.callback(each)
        await turns()


class Bench:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.channel = FakeChannel()
        self.part = Component("commands")
        self.taken: list[Delivery] = []
        self.pause = asyncio.Event()
        self.take_fails = False
        self.consumer = Consumer(
            Topology("worker", BrokerSettings()),
            self.take,
            self.part,
            prefetch=100,
            may_consume=self.may_consume,
            must_pause=self.must_pause,
        )

        async def open_channel(_: object) -> FakeChannel:
            return self.channel

        async def closed(_: object, channel: FakeChannel) -> str:
            return await asyncio.shield(channel.ended)

        monkeypatch.setattr(subscription_module, "open_channel", open_channel)
        monkeypatch.setattr(subscription_module, "closed", closed)

    def take(self, delivery: Delivery) -> None:
        if self.take_fails:
            raise ValueError("a bug")
        self.taken.append(delivery)

    async def may_consume(self) -> None:
        """At once."""

    async def must_pause(self) -> str:
        await self.pause.wait()
        return "the database is away"

    async def start(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self.consumer.serve(cast(AbstractConnection, object())))
        await until(lambda: self.part.ready)
        return task

    @property
    def tags(self) -> list[int]:
        return [delivery.tag for delivery in self.taken]


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def made(given: DeliveredMessage) -> Delivery:
    header = ContentHeader(body_size=len(given.body), properties=given.header.properties)
    tag, again = given.delivery_tag or 0, bool(given.redelivered)
    return read_delivery(tag, again, header.marshal(), given.body, AckWindow(cast(Any, None), 1))


def test_a_message_becomes_a_delivery() -> None:
    headers = {"tenant": "eu", "x-delivery-count": 2}
    delivery = made(
        message(
            7,
            redelivered=True,
            body=b"body",
            message_id="m",
            message_type="user.create",
            correlation_id="c",
            reply_to="r",
            content_encoding="gzip",
            headers=headers,
        )
    )

    assert (delivery.tag, delivery.body) == (7, b"body")
    assert (delivery.message_id, delivery.type) == ("m", "user.create")
    assert (delivery.correlation_id, delivery.reply_to) == ("c", "r")
    assert (delivery.content_encoding, delivery.delivery_count) == ("gzip", 2)
    assert delivery.headers == headers
    assert delivery.unreadable is None


def test_empty_properties_are_none_at_all() -> None:
    delivery = made(message(message_id="", correlation_id="", reply_to=""))

    assert (delivery.message_id, delivery.correlation_id, delivery.reply_to) == (None, None, None)
    assert delivery.headers == {}


@pytest.mark.parametrize("count", ["9", None, 1.5, [9], {"a": 9}])
def test_a_delivery_count_that_is_no_number_counts_nothing(count: object) -> None:
    delivery = made(message(redelivered=True, headers={"x-delivery-count": count}))

    assert delivery.delivery_count == 0


def test_a_publisher_cannot_make_a_new_message_a_suspect() -> None:
    delivery = made(message(redelivered=False, headers={"x-delivery-count": 99}))

    assert delivery.delivery_count < SUSPECT_DELIVERIES


@pytest.mark.parametrize(
    "forged", ["\x1b[2J\r\nforged", "x" * 100_000, bytearray(b"\xff"), 1, {"a": 1}]
)
def test_a_publisher_cannot_forge_the_mark_of_unreadable_properties(forged: object) -> None:
    """Its text would stand, unchecked and at any length, in the event and the log."""
    unreadable = made(message(headers={UNREADABLE_HEADER: forged})).unreadable

    assert unreadable is None or (len(unreadable) < 1_000 and unreadable.isprintable())


async def test_taking_begins_with_one_and_widens(bench: Bench) -> None:
    task = await bench.start()
    assert bench.channel.prefetches == [1]
    for tag in (1, 2, 3):
        await bench.channel.deliver(message(tag))

    assert bench.channel.prefetches == [1, 100]
    assert bench.tags == [1, 2, 3]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_suspect_that_comes_first_runs_alone(bench: Bench) -> None:
    task = await bench.start()
    headers = {"x-delivery-count": ALONE_DELIVERIES}
    await bench.channel.deliver(message(1, redelivered=True, headers=headers))

    assert bench.tags == [1]
    assert bench.channel.prefetches == [1]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_suspect_among_others_runs_alone_when_those_are_done(bench: Bench) -> None:
    """And is not sent back, which the broker would count like a death."""
    task = await bench.start()
    await bench.channel.deliver(message(1))
    headers = {"x-delivery-count": ALONE_DELIVERIES}
    suspects = [message(tag, redelivered=True, headers=headers) for tag in (2, 5)]
    await bench.channel.deliver(suspects[0], message(3), message(4), suspects[1])
    assert bench.tags == [1]
    assert bench.channel.calls[-1] == "cancel"

    # Nothing overtakes it, since that may have its key; what is innocent goes on together.
    for done, then in ((1, [2]), (2, [3, 4]), (3, []), (4, [5])):
        before = len(bench.tags)
        bench.taken[0].source.settle(done)
        await turns()
        assert bench.tags[before:] == then
    assert bench.channel.prefetches == [1, 100]
    bench.taken[0].source.settle(5)
    await until(lambda: bench.channel.prefetches == [1, 100, 100])
    assert not task.done()
    await bench.channel.deliver(message(6))
    assert bench.tags[-1] == 6
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_company_of_suspects_shrinks_with_each_redelivery(bench: Bench) -> None:
    """Hundreds that were in hand when all workers died are not carried out one by one."""
    task = await bench.start()
    suspects = [
        message(tag, redelivered=True, headers={"x-delivery-count": count})
        for tag, count in enumerate([3] * 70 + [4] * 20 + [5] * 5 + [6] * 2, start=2)
    ]
    await bench.channel.deliver(message(1), *suspects)
    companies = []
    handed = 0
    while handed < 1 + len(suspects):
        await until(lambda: len(bench.taken) > handed)  # noqa: B023
        await turns()
        companies.append(len(bench.taken) - handed)
        for delivery in bench.taken[handed:]:
            delivery.source.settle(delivery.tag)
        handed = len(bench.taken)

    # The last six of the first kind have ten of the second with them.
    assert companies == [1, 64, 16, 10, 4, 1, 1, 1]
    assert bench.tags == list(range(1, 99))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_begins_among_suspects_takes_as_many_as_these_bear(
    bench: Bench,
) -> None:
    task = await bench.start()
    for tag, count in ((1, 6), (2, 5), (3, 4), (4, 0)):
        headers = {"x-delivery-count": count}
        await bench.channel.deliver(message(tag, redelivered=True, headers=headers))

    assert bench.tags == [1, 2, 3, 4]
    assert bench.channel.prefetches == [1, 4, 16, 100]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_stop_gives_back_what_waits_for_a_suspect(bench: Bench) -> None:
    task = await bench.start()
    await bench.channel.deliver(message(1))
    headers = {"x-delivery-count": ALONE_DELIVERIES}
    suspect = message(2, redelivered=True, headers=headers)
    await bench.channel.deliver(suspect, message(3))
    await asyncio.wait_for(bench.consumer.stop_taking(), 5)
    bench.taken[0].source.settle(1)
    await asyncio.wait_for(bench.consumer.finish(), 5)
    await asyncio.wait_for(task, 5)

    assert bench.tags == [1]
    assert bench.channel.calls[-3:] == ["cancel", "ack 1", "close"]


@pytest.mark.parametrize("how", ["closed", "cancelled", "paused"])
async def test_whatever_ends_a_subscription_closes_its_window(bench: Bench, how: str) -> None:
    task = await bench.start()
    await bench.channel.deliver(message(1))
    match how:
        case "closed":
            bench.channel.ended.set_result("the link broke")
        case "cancelled":
            for callback in bench.channel.on_consumer_cancel_callbacks:
                callback(None)
        case _:
            bench.pause.set()
    with pytest.raises(AMQPError):
        await asyncio.wait_for(task, 5)

    assert bench.taken[0].source.closed


async def test_a_stop_takes_no_more_and_gives_the_rest_back(bench: Bench) -> None:
    task = await bench.start()
    for tag in (1, 2):
        await bench.channel.deliver(message(tag))
    await asyncio.wait_for(bench.consumer.stop_taking(), 5)
    assert bench.channel.calls[-1] == "cancel"
    bench.taken[0].source.settle(1)
    await asyncio.wait_for(bench.consumer.finish(), 5)
    await asyncio.wait_for(task, 5)

    assert bench.channel.calls[-3:] == ["cancel", "ack 1", "close"]


async def test_a_stop_before_any_subscription_waits_for_nothing(bench: Bench) -> None:
    await asyncio.wait_for(bench.consumer.stop_taking(), 5)
    await asyncio.wait_for(bench.consumer.finish(), 5)


async def test_a_stop_neither_takes_from_a_connection_that_comes_later_nor_waits_for_it(
    bench: Bench,
) -> None:
    """The one before it broke while the rest was being finished."""
    await asyncio.wait_for(bench.consumer.stop_taking(), 5)
    serving = asyncio.create_task(bench.consumer.serve(cast(AbstractConnection, object())))
    await turns()
    await asyncio.wait_for(bench.consumer.finish(), 5)

    assert bench.channel.calls == []
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_a_stop_does_not_wait_for_a_connection_that_broke_meanwhile(bench: Bench) -> None:
    task = await bench.start()
    bench.channel.on_cancel = AMQPError("the link broke")
    stopping = asyncio.create_task(bench.consumer.stop_taking())
    with pytest.raises(AMQPError):
        await asyncio.wait_for(task, 5)
    bench.part.down("the link broke")  # as the supervisor does

    await asyncio.wait_for(stopping, 0.5)


async def test_a_delivery_that_cannot_be_taken_ends_the_subscription(bench: Bench) -> None:
    """Else it would stay unanswered for ever, and use up the prefetch, in silence."""
    task = await bench.start()
    bench.take_fails = True
    assert bench.channel.callback is not None
    await asyncio.gather(bench.channel.callback(message(1)), return_exceptions=True)
    await turns()
    ended = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert ended


async def test_a_node_that_answers_nothing_about_the_queue_is_left(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_for_ever(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    impatient = Topology("worker", BrokerSettings(connect_timeout_seconds=0.01))
    monkeypatch.setattr(bench.consumer, "_topology", impatient)
    monkeypatch.setattr(FakeChannel, "basic_consume", wait_for_ever)

    with pytest.raises(Unreachable, match="lost sight of the queue's leader"):
        await asyncio.wait_for(bench.consumer.serve(cast(AbstractConnection, object())), 5)
    assert not bench.part.ready
