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
from secrets import token_hex

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError
from pamqp.header import ContentHeader

from worker.broker import properties
from worker.broker.connection import answered_within, closed, intake_of, open_channel
from worker.broker.topology import Topology
from worker.broker.window import Window
from worker.broker.wire import UNREADABLE_HEADER, Intake
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
        patience = self._topology.settings.connect_timeout_seconds
        async with answered_within(patience):
            await self._topology.ensure(connection)
        await self._may_consume()
        channel = await open_channel(connection)
        window = Window(channel, self._prefetch)
        acks = asyncio.create_task(window.acknowledge())
        subscription = _Subscription(
            self._topology.commands, channel, window, self._take, intake_of(connection)
        )
        self._idle.clear()
        try:
            async with answered_within(patience):
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
        self,
        queue: str,
        channel: Channel,
        window: Window,
        take: Callable[[Delivery], None],
        intake: Intake | None = None,
    ) -> None:
        self.channel = channel
        self.cancelled = asyncio.Event()
        self.failed = asyncio.Event()
        self._queue = queue
        self._window = window
        self._take = take
        self._intake = intake
        self._careful = True
        self._consumer_tag = ""
        self._widening: asyncio.Task[None] | None = None
        self._set_aside: set[int] = set()
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
                await self._window.only(self._set_aside)

    async def _consume(self, prefetch: int) -> None:
        await self.channel.basic_qos(prefetch_count=prefetch)
        self._consumer_tag = f"worker-{token_hex(8)}"
        if self._intake is not None:
            self._intake.sinks[self.channel.number, self._consumer_tag.encode()] = self._on_content
        await self.channel.basic_consume(
            self._queue, self._on_message, consumer_tag=self._consumer_tag
        )

    async def _widen(self) -> None:
        # A prefetch holds for the consumers that come after it.
        await self.channel.basic_cancel(self._consumer_tag)
        await self._consume(self._prefetch)

    async def _on_message(self, message: DeliveredMessage) -> None:
        """Take what came through aiormq, where the connection has no intake of ours."""
        try:
            header = ContentHeader(properties=message.header.properties).marshal()
        except (ValueError, TypeError):
            header = b""  # decoded, yet not to be written again: unreadable
        assert message.delivery_tag is not None
        self._on_content(message.delivery_tag, bool(message.redelivered), header, message.body)

    def _on_content(self, tag: int, redelivered: bool, header: bytes, body: bytes) -> None:
        try:
            self._accept(read_delivery(tag, redelivered, header, body, self._window))
        except Exception:
            # The delivery would hold its place for ever.
            log.exception("a delivery could not be taken")
            self.failed.set()

    def _accept(self, delivery: Delivery) -> None:
        self._window.add(delivery.tag)
        suspect = delivery.delivery_count >= SUSPECT_DELIVERIES
        if suspect and not self._careful:
            self._suspect_came.set()
        if self._suspect_came.is_set():
            # What comes after a suspect may have its key, and must not overtake it.
            self._set_aside.add(delivery.tag)
            return
        self._take(delivery)
        if self._careful and not suspect:
            self._careful = False
            self._widening = asyncio.create_task(self._widen())


def read_delivery(
    tag: int, redelivered: bool, header: bytes, body: bytes, window: Window
) -> Delivery:
    """The message of a delivery tag, from its content header (the payload) and its body."""
    found = properties.read(header)
    # Only the broker sets the flag; a header of that name can come from the publisher.
    count = found.headers.get("x-delivery-count", 0) if redelivered else 0
    mended = found.headers.get(UNREADABLE_HEADER)
    return Delivery(
        body=body,
        tag=tag,
        source=window,
        message_id=found.message_id,
        type=found.type,
        correlation_id=found.correlation_id,
        reply_to=found.reply_to,
        content_encoding=found.content_encoding,
        headers=found.headers,
        delivery_count=count if isinstance(count, int) else 0,
        unreadable=ascii(mended)[:200].strip("'") if mended else found.unreadable,
        properties=header,
    )
