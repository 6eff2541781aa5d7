"""RabbitMQ that stops, crashes, freezes, forgets, and refuses."""

from __future__ import annotations

import asyncio
import json
import time

import pika

from dev.chaos import amqp
from dev.chaos.faults.fault import Blow, BrokenPromise, Fault, NotInjected, until
from dev.chaos.schedule import Recipe
from dev.servers.rabbitmq import PrivateRabbitMQ

FULL = "chaos.full"
POLICY = "chaos"
BACK_SECONDS = 10
"""How long workers may take to make a deleted queue again."""


class _OneNode(Fault):
    @property
    def node(self) -> PrivateRabbitMQ:
        """The broker; of a cluster any of its nodes."""
        nodes = self.place.broker.nodes
        return nodes[self.planned.choice % len(nodes)]


class BrokerRestart(_OneNode):
    """Stopped in order, and started again."""

    name = "broker-restart"
    recipe = Recipe((0, 2))

    async def begin(self) -> None:
        await asyncio.to_thread(self.node.stop)

    async def end(self) -> None:
        await asyncio.to_thread(self.node.start)


class BrokerKill(BrokerRestart):
    """kill -9 of the node, and started again."""

    name = "broker-kill"

    async def begin(self) -> None:
        await asyncio.to_thread(self.node.kill)


class ClusterKill(Fault):
    """kill -9 of all nodes at once, and started again."""

    name = "cluster-kill"
    needs_nodes = True
    recipe = Recipe((0, 2))

    async def begin(self) -> None:
        await asyncio.to_thread(self.place.broker.kill)

    async def end(self) -> None:
        await asyncio.to_thread(self.place.broker.start)


class BrokerFreeze(_OneNode):
    """Connections stay open, and nobody answers."""

    name = "broker-freeze"
    recipe = Recipe((3, 8))

    async def begin(self) -> None:
        await asyncio.to_thread(self.node.freeze)

    async def end(self) -> None:
        await asyncio.to_thread(self.node.thaw)


class ConnectionsClosed(Blow):
    """An administrator closes all connections."""

    name = "broker-closes-connections"
    recipe = Recipe((0, 0))

    async def begin(self) -> None:
        await self.place.ctl("close_all_connections", "chaos")


class MemoryAlarm(Fault):
    """The broker takes no messages; what it has it still delivers."""

    name = "memory-alarm"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        await self.place.ctl("set_vm_memory_high_watermark", "0.00001")

    async def end(self) -> None:
        await self.place.ctl("set_vm_memory_high_watermark", "absolute", "1GB")


class EventsRefused(Fault):
    """A subscriber's queue is full, so the broker takes no event (nack)."""

    name = "events-refused"
    recipe = Recipe((1, 3))

    async def begin(self) -> None:
        def bind(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
            arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
            channel.queue_declare(FULL, durable=True, arguments=arguments)
            channel.queue_bind(FULL, self.place.events, "#")

        await self.place.on_channel(bind)

    async def end(self) -> None:
        await self.place.on_channel(lambda channel: channel.queue_delete(FULL))


class DeadLettersRefused(Fault):
    """The queue of dead letters is full: a policy bounds it to nothing."""

    name = "dead-letters-refused"
    recipe = Recipe((2, 4))

    async def begin(self) -> None:
        bound = json.dumps({"max-length": 0})
        pattern = f"^{self.place.dead_letters}$".replace(".", "\\.")
        await self.place.ctl("set_policy", "--apply-to", "queues", POLICY, pattern, bound)

    async def end(self) -> None:
        await self.place.ctl("clear_policy", POLICY)


class StreamDeleted(Fault):
    """The stream of events is deleted while nobody else subscribes: events find no queue.

    What the observer has no queue for it reads in the new stream. It stays bound until the old one
    is gone: an event that only the old one has goes with it, and that is no fault of the worker's.
    """

    name = "events-stream-deleted"
    hides_order = True
    recipe = Recipe((0.5, 2))

    async def begin(self) -> None:
        def delete(channel: pika.adapters.blocking_connection.BlockingChannel) -> None:
            channel.queue_delete(self.place.events)
            channel.queue_unbind(self.place.observed, self.place.events, "#")

        await self.place.on_channel(delete)

    async def end(self) -> None:
        await self.place.on_channel(
            lambda channel: channel.queue_bind(self.place.observed, self.place.events, "#")
        )
        await self.place.observe_stream()


class CommandsDeleted(Fault):
    """The commands queue, or a partition's, is deleted: the broker cancels all its consumers.

    Whatever is in it would be lost with it, so it happens when the publisher rests and every
    command has its answer; and it lasts until a worker has made it again, since without it the
    commands of a partition would go to another.
    """

    name = "commands-queue-deleted"
    recipe = Recipe((0.5, 1))

    async def begin(self) -> None:
        if not await self.place.publisher.pause():
            raise NotInjected("the publisher did not come to rest")
        place = self.place
        await until(lambda: not place.book.unanswered(), within=30, what="not all was answered")
        queue = self._queue
        await place.on_channel(lambda channel: channel.queue_delete(queue))

    async def end(self) -> None:
        url, deadline = self.place.broker.url, time.monotonic() + BACK_SECONDS
        try:
            while not await asyncio.to_thread(amqp.exists, url, self._queue):
                if time.monotonic() > deadline:
                    raise BrokenPromise(f"no worker has made {self._queue} again")
        finally:
            await self.place.publisher.resume()

    @property
    def _queue(self) -> str:
        queues = self.place.command_queues
        return queues[self.planned.choice % len(queues)]
