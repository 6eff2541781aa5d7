"""Takes deliveries from the commands queue, and acknowledges them when they are answered.

The callback only builds a `Delivery` and hands it on; the work is done elsewhere, so a connection
that breaks cancels no transaction. What was delivered over it is simply no longer ours: the broker
delivers it again, and the ledger knows what was done.

A command that ends the whole process is met with care. The broker counts a redelivery against all
that was in hand, innocents included; so what has been redelivered several times is a suspect, and a
suspect runs with nothing else in hand. Only the culprit's count grows then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from worker.broker.connection import closed, open_channel
from worker.broker.topology import Topology
from worker.broker.window import Window
from worker.broker.wire import UNREADABLE_HEADER
from worker.messages import Delivery
from worker.telemetry.health import Part

log = structlog.get_logger(__name__)

SUSPECT_DELIVERIES = 3
"""Redeliveries from which on a command runs with nothing else in hand."""

CLEARING_SECONDS = 10
"""How long other commands may take to finish before a suspect goes back to the queue."""


class Consumer:
    """Subscribes to the commands queue for as long as it is served with a connection.

    `take` gets each delivery, at once and in order. `may_consume` is awaited before a subscription
    begins, and `must_pause` ends one: nothing is taken, nor held, while the database is away.
    """

    def __init__(
        self,
        topology: Topology,
        take: Callable[[Delivery], None],
        part: Part,
        *,
        prefetch: int,
        may_consume: Callable[[], Awaitable[None]],
        must_pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._topology = topology
        self._take = take
        self._part = part
        self._prefetch = prefetch
        self._may_consume = may_consume
        self._must_pause = must_pause
        self._stop = asyncio.Event()
        self._finish = asyncio.Event()
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()  # no subscription is being served
        self._idle.set()

    async def serve(self, connection: AbstractConnection) -> None:
        """Take deliveries until the connection, the subscription or the service ends."""
        await self._topology.ensure(connection)
        await self._may_consume()
        channel = await open_channel(connection)
        window = Window(channel)
        acks = asyncio.create_task(window.acknowledge())
        subscription = _Subscription(self._topology.commands, channel, window, self._take)
        self._idle.clear()
        try:
            await subscription.begin_with_care(self._prefetch)
            self._part.up()
            reason = await self._until_the_end(connection, subscription)
            if reason is not None:
                raise AMQPError(reason)
            await subscription.cancel()
            self._stopped.set()
            await self._finish.wait()
            acks.cancel()  # two tasks at once could acknowledge out of order
            await asyncio.gather(acks, return_exceptions=True)
            await window.flush(stragglers=True)
            await window.give_back()
            await channel.close()
        finally:
            self._idle.set()
            window.close()
            subscription.end()
            acks.cancel()
            await asyncio.gather(acks, return_exceptions=True)

    async def stop_taking(self) -> None:
        """Let no further delivery come; returns when none can."""
        self._stop.set()
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stopped, self._idle)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def finish(self) -> None:
        """Acknowledge what is settled, give the rest back, and end `serve`."""
        self._finish.set()
        await self._idle.wait()

    async def _until_the_end(
        self, connection: AbstractConnection, subscription: _Subscription
    ) -> str | None:
        """Why taking ended; `None` when the service stops."""
        endings = {
            asyncio.ensure_future(closed(connection, subscription.channel)): "",
            asyncio.ensure_future(subscription.cancelled.wait()): (
                f"the broker cancelled the consumer of {self._topology.commands!r}: "
                "the queue was deleted, or its leader was lost"
            ),
            asyncio.ensure_future(subscription.failed.wait()): (
                "a delivery could not be taken; the log says why"
            ),
            asyncio.ensure_future(subscription.suspected()): (
                "a command came that was in hand when workers died: it will run alone"
            ),
            asyncio.ensure_future(self._must_pause()): "the database is away",
            asyncio.ensure_future(self._stop.wait()): None,
        }
        try:
            done, _ = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            ending = done.pop()
            reason = endings[ending]
            return str(ending.result()) if reason == "" else reason
        finally:
            for ending in endings:
                ending.cancel()


class _Subscription:
    """A consumer on a channel: one command at a time at first, then as many as may be.

    It begins with one, since the first to come may be a suspect; and it widens with the first that
    is none.
    """

    def __init__(
        self, queue: str, channel: Channel, window: Window, take: Callable[[Delivery], None]
    ) -> None:
        self.channel = channel
        self.cancelled = asyncio.Event()
        self.failed = asyncio.Event()
        self._queue = queue
        self._window = window
        self._take = take
        self._careful = True
        self._consumer_tag = ""
        self._widening: asyncio.Task[None] | None = None
        self._suspects: set[int] = set()
        self._suspect_came = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: self.cancelled.set())

    async def begin_with_care(self, prefetch: int) -> None:
        self._prefetch = prefetch
        await self._consume(1)

    async def cancel(self) -> None:
        """Ask for no more; what was on its way has come when this returns."""
        if self._widening is not None:
            await self._widening
        await self.channel.basic_cancel(self._consumer_tag)

    def end(self) -> None:
        if self._widening is not None:
            self._widening.cancel()

    async def suspected(self) -> None:
        """Return when a suspect has come among others, and those others are done with."""
        await self._suspect_came.wait()
        await self.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLEARING_SECONDS):
                await self._window.only(self._suspects)

    async def _consume(self, prefetch: int) -> None:
        await self.channel.basic_qos(prefetch_count=prefetch)
        answer = await self.channel.basic_consume(self._queue, self._on_message)
        assert answer.consumer_tag is not None
        self._consumer_tag = answer.consumer_tag

    async def _widen(self) -> None:
        # A prefetch holds for the consumers that come after it.
        await self.channel.basic_cancel(self._consumer_tag)
        await self._consume(self._prefetch)

    async def _on_message(self, message: DeliveredMessage) -> None:
        try:
            self._accept(message)
        except Exception:
            # aiormq would only log it, and the delivery would hold its place for ever.
            log.exception("a delivery could not be taken")
            self.failed.set()

    def _accept(self, message: DeliveredMessage) -> None:
        delivery = _delivery(message, self._window)
        self._window.add(delivery.tag)
        suspect = delivery.delivery_count >= SUSPECT_DELIVERIES
        if suspect and not self._careful:
            self._suspects.add(delivery.tag)
            self._suspect_came.set()
            return
        self._take(delivery)
        if self._careful and not suspect:
            self._careful = False
            self._widening = asyncio.create_task(self._widen())


def _delivery(message: DeliveredMessage, window: Window) -> Delivery:
    properties = message.header.properties
    headers = properties.headers or {}
    # Only the broker sets the flag; a header of that name can come from the publisher.
    count = headers.get("x-delivery-count", 0) if message.redelivered else 0
    unreadable = headers.get(UNREADABLE_HEADER)
    assert message.delivery_tag is not None
    return Delivery(
        body=message.body,
        tag=message.delivery_tag,
        source=window,
        message_id=properties.message_id or None,
        type=properties.message_type or None,
        correlation_id=properties.correlation_id or None,
        reply_to=properties.reply_to or None,
        content_encoding=properties.content_encoding or None,
        headers=headers,
        delivery_count=count if isinstance(count, int) else 0,
        unreadable=ascii(unreadable)[:200].strip("'") if unreadable else None,
        properties=properties,
    )
