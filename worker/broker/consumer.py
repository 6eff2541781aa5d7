"""Takes deliveries from the commands queue, and acknowledges them when they are answered.

The callback only builds a `Delivery` and hands it on; the work is done elsewhere, so a connection
that breaks cancels no transaction. What was delivered over it is simply no longer ours: the broker
delivers it again, and the ledger knows what was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from worker.broker.connection import closed, open_channel
from worker.broker.topology import Topology
from worker.broker.wire import UNREADABLE_HEADER
from worker.messages import Delivery
from worker.telemetry.health import Part

log = structlog.get_logger(__name__)

STRAGGLER_SECONDS = 0.05
"""How long a settled delivery may wait for those before it to be acknowledged together."""


class Window:
    """The deliveries of one subscription that are not acknowledged yet.

    Acknowledgements leave from one task, in order. `multiple` covers all up to the low-water mark,
    below which everything is settled; what is settled above a straggler is acknowledged one by one
    after a moment, so that a command that waits for its retry does not use up the prefetch.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._open: dict[int, bool] = {}  # tag -> settled, in the order delivered
        self._changed = asyncio.Event()
        self.closed = False

    def add(self, tag: int) -> None:
        """A delivery came."""
        self._open[tag] = False

    def settle(self, tag: int) -> None:
        """A delivery is answered."""
        if not self.closed and tag in self._open:
            self._open[tag] = True
            self._changed.set()

    def close(self) -> None:
        """The broker will deliver all of it again."""
        self.closed = True
        self._open.clear()
        self._changed.set()

    async def acknowledge(self) -> None:
        """Acknowledge what is settled, as it comes, until the channel ends."""
        while not self.closed:
            await self._changed.wait()
            self._changed.clear()
            await self.flush()
            if True in self._open.values():
                await asyncio.sleep(STRAGGLER_SECONDS)
                await self.flush(stragglers=True)

    async def flush(self, *, stragglers: bool = False) -> None:
        """Acknowledge up to the low-water mark; with `stragglers` also what is settled above it."""
        mark = 0
        for tag, settled in list(self._open.items()):
            if not settled:
                break
            mark = tag
            del self._open[tag]
        if mark:
            await self._channel.basic_ack(mark, multiple=True, wait=False)
        if stragglers:
            for tag in [tag for tag, settled in self._open.items() if settled]:
                del self._open[tag]
                await self._channel.basic_ack(tag, wait=False)

    async def give_back(self) -> None:
        """Return everything that is not settled to its place in the queue."""
        if self._open:
            await self._channel.basic_nack(max(self._open), multiple=True, requeue=True)
            self._open.clear()


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
        may_consume: Callable[[], Any],
        must_pause: Callable[[], Any],
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
        self._finished = asyncio.Event()

    async def serve(self, connection: AbstractConnection) -> None:
        """Take deliveries until the connection, the subscription or the service ends."""
        await self._topology.ensure(connection)
        await self._may_consume()
        channel = await open_channel(connection)
        window = Window(channel)
        cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: cancelled.set())
        await channel.basic_qos(prefetch_count=self._prefetch)
        tag = await self._subscribe(channel, window)
        self._part.up()
        acks = asyncio.create_task(window.acknowledge())
        try:
            reason = await self._until_the_end(connection, channel, cancelled)
            if reason is not None:
                raise AMQPError(reason)
            await channel.basic_cancel(tag)
            self._stopped.set()
            await self._finish.wait()
            await window.flush(stragglers=True)
            await window.give_back()
            await channel.close()
            self._finished.set()
        finally:
            window.close()
            acks.cancel()
            await asyncio.gather(acks, return_exceptions=True)

    async def stop_taking(self) -> None:
        """Let no further delivery come; returns when none can."""
        self._stop.set()
        if self._part.ready:
            await self._stopped.wait()

    async def finish(self) -> None:
        """Acknowledge what is settled, give the rest back, and end `serve`."""
        self._finish.set()
        if self._part.ready:
            await self._finished.wait()

    async def _subscribe(self, channel: Channel, window: Window) -> str:
        async def on_message(message: DeliveredMessage) -> None:
            assert message.delivery_tag is not None
            window.add(message.delivery_tag)
            self._take(_delivery(message, window))

        answer = await channel.basic_consume(self._topology.commands, on_message)
        assert answer.consumer_tag is not None
        return answer.consumer_tag

    async def _until_the_end(
        self, connection: AbstractConnection, channel: Channel, cancelled: asyncio.Event
    ) -> str | None:
        """Why taking ended; `None` when the service stops."""
        endings = {
            asyncio.ensure_future(closed(connection, channel)): "",
            asyncio.ensure_future(cancelled.wait()): (
                f"the broker cancelled the consumer of {self._topology.commands!r}: "
                "the queue was deleted, or its leader was lost"
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


def _delivery(message: DeliveredMessage, window: Window) -> Delivery:
    properties = message.header.properties
    headers = properties.headers or {}
    count = headers.get("x-delivery-count", 0)
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
        unreadable=str(unreadable) if unreadable else None,
        properties=properties,
    )
