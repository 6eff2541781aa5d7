"""One consumer on a channel of its own: what it delivers, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Self

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp.header import ContentHeader

from worker.broker.connection import closed, intake_of, open_channel
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.protocol import properties
from worker.broker.protocol.frame_reader import UNREADABLE_HEADER
from worker.core.messages import Delivery
from worker.core.tasks import first_of

log = structlog.get_logger(__name__)

SUSPECT_DELIVERIES = 3
"""Redeliveries from which on a command may be what ended the workers that had it in hand."""

CLEARING_SECONDS = 10
"""How long commands in hand may take to finish before others stop waiting for them."""

Take = Callable[[Delivery], None]


class Subscription:
    """A consumer of a queue, the window of its deliveries, and the task that acknowledges them.

    `take` gets each delivery, at once and in order.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        channel: Channel,
        queue: str,
        take: Take,
        *,
        prefetch: int,
    ) -> None:
        self.queue = queue
        self.channel = channel
        self.window = AckWindow(channel, prefetch)
        self._prefetch = prefetch
        self._connection = connection
        self._take = take
        self._intake = intake_of(connection)
        self._consumer_tag = ""
        self._idle_after: int | None = None
        self._sinks: list[tuple[int, bytes]] = []
        self._cancelled = asyncio.Event()
        self._failed = asyncio.Event()
        self._acks = asyncio.create_task(self.window.acknowledge())
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())

    @classmethod
    async def open(
        cls, connection: AbstractConnection, queue: str, take: Take, *, prefetch: int
    ) -> Self:
        """A subscription that asks for nothing yet."""
        return cls(connection, await open_channel(connection), queue, take, prefetch=prefetch)

    async def consume(self, prefetch: int) -> None:
        """Ask for deliveries, at most so many before the first is acknowledged."""
        await self.channel.basic_qos(prefetch_count=prefetch)
        self._consumer_tag = f"worker-{token_hex(8)}"
        if self._intake is not None:
            self._sinks.append((self.channel.number, self._consumer_tag.encode()))
            self._intake.sinks[self._sinks[-1]] = self._on_content
        await self.channel.basic_consume(
            self.queue, self._on_message, consumer_tag=self._consumer_tag
        )

    async def cancel(self) -> None:
        """Ask for no more; what was on its way has come when this returns."""
        await self.channel.basic_cancel(self._consumer_tag)

    async def broken(self) -> str:
        """Wait for an end that was not asked for; return why it came."""
        reasons: dict[asyncio.Future[Any], str] = {
            asyncio.ensure_future(closed(self._connection, self.channel)): "",
            asyncio.ensure_future(self._cancelled.wait()): (
                f"the broker cancelled the consumer of {self.queue!r}: "
                "the queue was deleted, or its leader was lost"
            ),
            asyncio.ensure_future(self._failed.wait()): (
                "a delivery could not be taken; the log says why"
            ),
            asyncio.ensure_future(asyncio.wait({self._acks})): "nothing is acknowledged any more",
        }
        ended = await first_of(*reasons)
        return reasons[ended] or str(ended.result())

    def starves(self, waiting: int) -> bool:
        """Whether so many wait, none is in flight, and none has come since this was last asked."""
        idle_after = self.window.newest if waiting and not len(self.window) else None
        before, self._idle_after = self._idle_after, idle_after
        return idle_after is not None and idle_after == before

    async def acknowledge_all(self) -> None:
        """Acknowledge what is settled; nothing acknowledges after this."""
        self._acks.cancel()  # two tasks at once could acknowledge out of order
        await asyncio.gather(self._acks, return_exceptions=True)
        await self.window.flush(stragglers=True)

    async def end(self) -> None:
        """Have nothing more to do with it; what is not acknowledged is delivered again."""
        self.window.close()
        self._acks.cancel()
        await asyncio.gather(self._acks, return_exceptions=True)
        for sink in self._sinks:
            if self._intake is not None:
                self._intake.sinks.pop(sink, None)

    async def _on_message(self, message: DeliveredMessage) -> None:
        """Take what came through aiormq, where the connection has no intake of ours."""
        try:
            header = ContentHeader(properties=message.header.properties).marshal()
        except (ValueError, TypeError):
            header = b""  # decoded, yet not to be written again: unreadable
        assert message.delivery_tag is not None
        routing_key = (message.routing_key or "").encode()
        again = bool(message.redelivered)
        self._on_content(message.delivery_tag, again, routing_key, header, message.body)

    def _on_content(
        self, tag: int, redelivered: bool, routing_key: bytes, header: bytes, body: bytes
    ) -> None:
        try:
            self.window.add(tag)
            delivery = read_delivery(
                tag, redelivered, header, body, self.window, routing_key=routing_key
            )
            self._take(delivery)
        except Exception:
            # The delivery would hold its place for ever.
            log.exception("a delivery could not be taken")
            self._failed.set()


def read_delivery(
    tag: int,
    redelivered: bool,
    header: bytes,
    body: bytes,
    window: AckWindow,
    *,
    routing_key: bytes = b"",
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
        user_id=found.user_id,
        headers=found.headers,
        attributes=found.attributes,
        routing_key=routing_key,
        timestamp=found.timestamp,
        delivery_count=count if isinstance(count, int) else 0,
        lost=found.lost,
        unreadable=ascii(mended)[:200].strip("'") if mended else found.unreadable,
        properties=header,
    )
