"""Reads the stream of events, and goes on where it was after the broker has been away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from aiormq.exceptions import AMQPError

from worker.broker.client.client import FAILURES, ensure_exists, lost, unless_closed
from worker.broker.connection import closed, connect, open_channel
from worker.broker.nodes import Nodes
from worker.broker.topology import Topology
from worker.core.backoff import RECONNECT
from worker.core.errors import Misconfigured, Unreachable
from worker.core.tasks import is_cancelled
from worker.settings.settings import BrokerSettings

PREFETCH = 200
"""Events that the broker sends ahead; it lets no one read a stream without such a bound."""

END_SECONDS = 1.0
"""How long the last chunk of a stream is read to learn where the stream ends."""

Start = str | int | datetime
"""`first`, `next`, `last` (the last chunk that was written), an offset, or a time."""


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """One event as the stream keeps it."""

    offset: int
    routing_key: str
    body: bytes


class EventStream:
    """Follows the stream for ever, over any number of connections.

    Each event comes once, in order: a new connection begins behind the last event that was handed
    out. The first connection must succeed; later ones are waited for. `tell` is told of each.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        topology: Topology,
        start: Start,
        tell: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._topology = topology
        self._start = start
        self._tell = tell
        self._has_worked = False
        self._attempt = 0

    async def events(self) -> AsyncGenerator[RecordedEvent]:
        """Every event from the start on. Raises `Unreachable` or `Misconfigured`, at first only."""
        name, nodes = f"{self._topology.namespace} watch", Nodes(self._settings.urls)
        while True:
            try:
                async with (
                    connect(self._settings, name, nodes) as connection,
                    aclosing(self._read(connection)) as events,
                ):
                    async for event in events:
                        self._start = event.offset + 1
                        yield event
            except (Unreachable, Misconfigured, asyncio.CancelledError, *FAILURES) as error:
                self._interrupted(error)
            self._attempt += 1
            await asyncio.sleep(RECONNECT.delay(self._attempt))

    def _interrupted(self, error: BaseException) -> None:
        """Say why, once for each outage; raise it if it is no outage."""
        if isinstance(error, asyncio.CancelledError) and is_cancelled():
            raise error
        if not self._has_worked:
            if isinstance(error, Unreachable | Misconfigured):
                raise error
            raise lost(error) from error
        if self._attempt == 0:
            self._tell(f"interrupted, trying again: {str(error) or 'the connection was lost'}")

    async def _read(self, connection: AbstractConnection) -> AsyncGenerator[RecordedEvent]:
        """The events of one connection; raises when it, or the subscription, ends."""
        name = self._topology.events
        await ensure_exists(connection, self._topology, queue=name)
        async with _subscribed(connection, name, self._start) as messages:
            looking = asyncio.create_task(self._find_end(connection))
            self._up()
            try:
                async for message in messages:
                    yield _recorded(message)
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)
        raise Unreachable("the subscription ended")

    async def _find_end(self, connection: AbstractConnection) -> None:
        """Turn `next` into an offset, or `first` for a stream that holds nothing.

        Should the connection break before any event has come, `next` would then skip what came
        meanwhile.
        """
        if self._start != "next":
            return
        end: Start = "first"
        async with _subscribed(connection, self._topology.events, "last") as messages:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    async for message in messages:
                        end = _recorded(message).offset + 1
            if self._start == "next":
                self._start = end

    def _up(self) -> None:
        begin = f"offset {self._start}" if isinstance(self._start, int) else str(self._start)
        if self._has_worked:
            self._tell(f"connected again, continuing from {begin}")
        else:
            self._tell(f"watching {self._topology.events} from {begin}")
        self._has_worked, self._attempt = True, 0


@asynccontextmanager
async def _subscribed(
    connection: AbstractConnection, queue: str, start: Start
) -> AsyncIterator[AsyncIterator[DeliveredMessage]]:
    """The messages of a stream, each acknowledged once the next one is asked for."""
    channel = await open_channel(connection)
    arrived: asyncio.Queue[DeliveredMessage | str] = asyncio.Queue()

    async def on_message(message: DeliveredMessage) -> None:
        arrived.put_nowait(message)

    channel.on_consumer_cancel_callbacks.add(
        lambda _: arrived.put_nowait(f"the broker cancelled the subscription to {queue!r}")
    )
    await channel.basic_qos(prefetch_count=PREFETCH)
    await unless_closed(
        channel.basic_consume(queue, on_message, arguments={"x-stream-offset": start})
    )
    ending = asyncio.create_task(_tell_end(connection, channel, arrived))
    try:
        yield _messages(channel, arrived)
    finally:
        ending.cancel()
        with suppress(*FAILURES):
            await channel.close()


async def _tell_end(
    connection: AbstractConnection, channel: Channel, arrived: asyncio.Queue[Any]
) -> None:
    arrived.put_nowait(await closed(connection, channel))


async def _messages(
    channel: Channel, arrived: asyncio.Queue[DeliveredMessage | str]
) -> AsyncIterator[DeliveredMessage]:
    while not isinstance(message := await arrived.get(), str):
        yield message
        assert message.delivery_tag is not None
        await channel.basic_ack(message.delivery_tag, wait=False)
    raise AMQPError(message)


def _recorded(message: DeliveredMessage) -> RecordedEvent:
    headers = message.header.properties.headers or {}
    offset = headers.get("x-stream-offset")
    assert isinstance(offset, int)
    return RecordedEvent(offset, message.routing_key or "", message.body)
