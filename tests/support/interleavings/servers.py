"""A broker to be tested, RabbitMQ or its stand-in: what both must be able to do.

The worker's side is the same for both: aiormq's channel, or what stands in for it, and the sinks
that deliveries and answers go to.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aio_pika
from aio_pika.abc import AbstractConnection
from pamqp.common import FieldTable

from tests.support.interleavings.broker import Broker, Connection
from tests.support.interleavings.schedule import Choices, World
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.settings.settings import Settings

WITHIN_SECONDS = 20


class BrokerUnderTest(ABC):
    """A broker with the worker's topology, and nothing in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topology = Topology(settings.namespace, settings.broker)

    @abstractmethod
    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test to its end."""

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[AbstractConnection]:
        """A connection as the worker makes it."""

    @abstractmethod
    async def put(self, *bodies: bytes) -> None:
        """Publish commands."""

    @abstractmethod
    async def unbind_events(self) -> None:
        """Let events find no queue."""

    @abstractmethod
    async def refuse_events(self) -> None:
        """Let no event be taken, from now on."""

    @abstractmethod
    async def delete_commands(self) -> None:
        """Delete the queue of commands."""


class StandIn(BrokerUnderTest):
    """The stand-in, in a world where all happens in order."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.world = World(Choices(b""))
        names = self.topology
        self.broker = Broker(
            self.world,
            commands=names.commands,
            events=names.events,
            dead_letters=names.dead_letters,
        )
        self.world.sources = [self.broker.moves]

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.world.loop) as runner:
            runner.run(test)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AbstractConnection]:
        connection = Connection(self.broker, self.world, "test")
        try:
            yield connection
        finally:
            await connection.close()

    async def put(self, *bodies: bytes) -> None:
        for body in bodies:
            self.broker.put(body)

    async def unbind_events(self) -> None:
        self.broker.events_bound = False

    async def refuse_events(self) -> None:
        self.broker.refusals = 1_000

    async def delete_commands(self) -> None:
        for connection in self.broker.links:
            for channel in connection.channels:
                channel.cancel_by_itself()


class RabbitMQ(BrokerUnderTest):
    """The broker of this test run."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def on_topology() -> None:
            url = self.settings.broker.url.get_secret_value()
            async with await aio_pika.connect(url) as self._connection:
                await self.topology.ensure(self._connection)
                try:
                    await test
                finally:
                    channel = await self._connection.channel()
                    for queue in (*self.topology.queues, self._full):
                        await channel.queue_delete(queue)
                    for exchange in (self.topology.commands, self.topology.events):
                        await channel.exchange_delete(exchange)

        asyncio.run(on_topology())

    def connect(self) -> AbstractAsyncContextManager[AbstractConnection]:
        return connect(self.settings.broker, "test")

    async def put(self, *bodies: bytes) -> None:
        channel = await self._connection.channel()
        for body in bodies:
            await channel.default_exchange.publish(
                aio_pika.Message(body), self.topology.commands, mandatory=True
            )
        await channel.close()

    async def unbind_events(self) -> None:
        channel = await self._connection.channel()
        queue = await channel.get_queue(self.topology.events)
        await queue.unbind(self.topology.events, "#")

    async def refuse_events(self) -> None:
        channel = await self._connection.channel()
        full: FieldTable = {"x-max-length": 1, "x-overflow": "reject-publish"}
        queue = await channel.declare_queue(self._full, durable=True, arguments=full)
        await channel.default_exchange.publish(aio_pika.Message(b"x"), self._full)
        await queue.bind(self.topology.events, "#")

    async def delete_commands(self) -> None:
        channel = await self._connection.channel()
        await channel.queue_delete(self.topology.commands)

    @property
    def _full(self) -> str:
        return f"{self.topology.namespace}.full"


async def soon(look: Callable[[], object]) -> None:
    """Return once that is true."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not look():  # noqa: ASYNC110 - what is looked at is not ours to signal
            await asyncio.sleep(0.01)
