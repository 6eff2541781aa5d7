"""Reads the dead letters without taking them away, and takes away those that are settled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from worker.broker.client.client import (
    FAILURES,
    Client,
    ensure_exists,
    lost,
    sender_on,
    unless_closed,
)
from worker.broker.client.dead_letter import StoredDeadLetter
from worker.broker.connection import connect, open_channel
from worker.broker.topology import Topology
from worker.core.errors import Unreachable
from worker.settings.settings import BrokerSettings

MOST_READ = 10_000
"""Letters that one command looks at to find some of them; all are held until it ends."""

CHUNK = 100
"""Letters that are read ahead, where there are not very many."""
MOST_CHANNELS = 1_000
"""That a look may use, of the 2,047 that RabbitMQ gives a connection by default."""
SILENT_SECONDS = 0.5
"""After so long it is looked whether there is anything left to come."""
RETURN_SECONDS = 1.0
"""At most, for the broker to have back what the end of a channel returns: milliseconds, really."""


class DeadLetters:
    """The dead-letter queue, held open: what is read and not settled goes back in the end."""

    def __init__(
        self,
        topology: Topology,
        connection: AbstractConnection,
        channel: Channel,
        sender: Client,
        count: int,
    ) -> None:
        self.topology = topology
        self.sender = sender
        self.count = count
        """How many there were at the beginning; those that come meanwhile are not read."""
        self._connection = connection
        self._channel = channel  # to ask on
        self._taken = 0
        # A chunk each, in the order of the queue: its unsettled letters, by number, and their tags.
        self._held: dict[Channel, dict[int, int]] = {}

    async def read(self, most: int) -> AsyncGenerator[StoredDeadLetter]:
        """The letters from the oldest on, at most that many; each can be read once."""
        most = min(most, self.count)
        chunk = max(CHUNK, most // MOST_CHANNELS)
        try:
            while self._taken < most:
                first = self._taken + 1
                messages = await self._take(min(chunk, most - self._taken))
                if not messages:
                    return  # somebody else has them, or they have expired
                for number, message in enumerate(messages, start=first):
                    properties = message.header.properties
                    yield StoredDeadLetter(number, message.body, properties, self.topology.commands)
                await self._close_settled()
        except FAILURES as error:
            raise lost(error) from error

    async def _take(self, count: int) -> list[DeliveredMessage]:
        """The next letters, by a subscription that ends when it has them.

        What one subscription was delivered goes back in its order. Messages that were got one by
        one do not: RabbitMQ 3.10 takes each for a consumer, and returns those in any order.
        """
        channel = await open_channel(self._connection)
        arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()

        async def on_message(message: DeliveredMessage) -> None:
            arrived.put_nowait(message)

        await channel.basic_qos(prefetch_count=count)
        name = self.topology.dead_letters
        subscribed = await unless_closed(channel.basic_consume(name, on_message))
        assert subscribed.consumer_tag is not None
        messages: list[DeliveredMessage] = []
        while len(messages) < count:
            try:
                async with asyncio.timeout(SILENT_SECONDS):
                    messages.append(await arrived.get())
            except TimeoutError:
                if not await self._ready() and arrived.empty():
                    break
        await unless_closed(channel.basic_cancel(subscribed.consumer_tag))
        held = self._held[channel] = {}
        for message in messages:
            assert message.delivery_tag is not None
            self._taken += 1
            held[self._taken] = message.delivery_tag
        return messages

    async def _close_settled(self) -> None:
        for channel in [channel for channel, held in self._held.items() if not held]:
            del self._held[channel]
            await unless_closed(channel.close())

    async def settle(self, letter: StoredDeadLetter) -> None:
        """Take the letter away, for good."""
        channel, held = next(it for it in self._held.items() if letter.number in it[1])
        try:
            await channel.basic_ack(held[letter.number])
        except FAILURES as error:
            raise lost(error) from error
        del held[letter.number]

    async def give_back(self) -> None:
        """Return everything that was read and not settled, after taking the rest.

        What is given back goes before what was never taken out, and behind what was given back
        before. So letters keep their places, and their numbers, only where each look takes them
        all (or, of very many, the same number).

        By the end of one channel after the other, each seen to have come about: a `nack` of more
        than 32 is carried out in any order by RabbitMQ 3.10 where the queue has a delivery limit.
        From 4.3 on this counts as a failed delivery; the limit of this queue leaves room for that.
        """
        if not any(self._held.values()):
            return
        while (rest := min(self.count, MOST_READ) - self._taken) > 0:
            if not await self._take(min(rest, CHUNK)):
                break
        for channel, held in self._held.items():
            await self._end(channel, await self._ready() + len(held))
        self._held.clear()

    async def _end(self, channel: Channel, ready: int) -> None:
        """Close a channel, and wait until so many letters are in nobody's hands."""
        await channel.close()
        with suppress(TimeoutError):  # others may take them at once
            async with asyncio.timeout(RETURN_SECONDS):
                while await self._ready() < ready:  # noqa: ASYNC110 - the broker does not tell
                    await asyncio.sleep(0.005)

    async def _ready(self) -> int:
        """How many letters are in nobody's hands."""
        name = self.topology.dead_letters
        declared = await unless_closed(self._channel.queue_declare(name, passive=True))
        return declared.message_count or 0


@asynccontextmanager
async def open_dead_letters(
    settings: BrokerSettings, topology: Topology
) -> AsyncIterator[DeadLetters]:
    """The dead letters of the topology, and a sender on the same connection.

    Until the end nobody else sees what was read; should this process die, the broker returns it.
    """
    name = topology.dead_letters
    async with connect(settings, name) as connection:
        await ensure_exists(connection, topology, queue=name)
        try:
            channel = await open_channel(connection)
            declared = await channel.queue_declare(name, passive=True)
            sender = await sender_on(connection, settings)
        except FAILURES as error:
            raise lost(error) from error
        letters = DeadLetters(topology, connection, channel, sender, declared.message_count or 0)
        try:
            yield letters
        finally:
            with suppress(*FAILURES, Unreachable):  # a broker that is gone has taken them back
                await letters.give_back()
