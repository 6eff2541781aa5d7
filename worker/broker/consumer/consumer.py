"""Takes deliveries from the commands queues, and acknowledges them when they are answered.

The callback only builds a `Delivery` and hands it on; the work is done elsewhere, so a connection
that breaks cancels no transaction. What was delivered over it is simply no longer ours: the broker
delivers it again, and the ledger knows what was done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError

from worker.broker.connection import answered_within
from worker.broker.consumer.partition_balancer import Partitions
from worker.broker.consumer.shared_queue import SharedSubscription
from worker.broker.consumer.subscription import Take
from worker.broker.topology import Topology
from worker.core.tasks import first_of, gather_all
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

IN_FLIGHT = Instrument(
    "worker.commands.in_flight",
    "gauge",
    "{command}",
    "Commands that the broker has handed out to this process, not acknowledged yet.",
)
PREFETCH = Instrument(
    "worker.commands.in_flight.max",
    "gauge",
    "{command}",
    "Most of these that the broker hands out: `WORKER_PREFETCH`, shared among the queues.",
)
INSTRUMENTS: tuple[Instrument, ...] = (IN_FLIGHT, PREFETCH)


class Consumer:
    """Subscribes to the commands queues for as long as it is served with a connection.

    `take` gets each delivery, at once and, from each queue, in order. `may_consume` is awaited
    before a subscription begins, and `must_pause` ends all and returns why: nothing is taken, nor
    held, while the database is away or answers cannot leave. The queues share the prefetch. They
    exist when it is served.
    """

    def __init__(
        self,
        topology: Topology,
        take: Take,
        part: Component,
        *,
        prefetch: int,
        may_consume: Callable[[], Awaitable[None]],
        must_pause: Callable[[], Awaitable[str]],
    ) -> None:
        self._topology = topology
        self._take = take
        self._part = part
        self._prefetch = max(1, prefetch // (1 + len(topology.partitions)))
        self.partitions = Partitions(topology, take, prefetch=self._prefetch)
        self._may_consume = may_consume
        self._must_pause = must_pause
        self._shared: SharedSubscription | None = None
        self._stop = asyncio.Event()
        self._finish = asyncio.Event()
        self._stopped = asyncio.Event()
        self._idle = asyncio.Event()  # no subscription is being served
        self._idle.set()

    async def serve(self, connection: AbstractConnection) -> None:
        """Take deliveries until the connection, a subscription or the service ends.

        A connection that comes while the service stops is not taken from; the caller ends it.
        """
        await self._may_consume()
        if self._stop.is_set():  # what came now would only go back
            await asyncio.Event().wait()
        self._idle.clear()
        try:
            ended = await first_of(
                gather_all(
                    self.partitions.serve(connection, self._finish),
                    self._serve_shared_queue(connection),
                ),
                self._pausing(),
            )
            ended.result()
        finally:
            self._idle.set()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        shared = len(self._shared.window) if self._shared is not None else 0
        yield IN_FLIGHT, [({}, shared + self.partitions.in_flight)]
        queues = len(self._topology.consumed)
        yield PREFETCH, [({}, queues * self._prefetch)]

    def starving(self, waiting: Mapping[str, int]) -> list[str]:
        """Queues in which so many commands wait, and none has come since this was last asked."""
        if self._stop.is_set():
            return []
        queues = list(self.partitions.starving(waiting))
        commands = self._topology.commands
        if self._shared is not None and self._shared.starves(waiting.get(commands, 0)):
            queues.append(commands)
        return queues

    async def stop_taking(self) -> None:
        """Let no further delivery come; returns when none can.

        From partitions some may still come, and go back in the end with all that is not settled: to
        ask for no more would let the next in line begin before this worker has finished.
        """
        self._stop.set()
        await first_of(self._stopped.wait(), self._idle.wait())

    async def finish(self) -> None:
        """Acknowledge what is settled, give the rest back, and end `serve`."""
        self._finish.set()
        await self._idle.wait()

    async def _serve_shared_queue(self, connection: AbstractConnection) -> None:
        await self.partitions.standing.wait()
        subscription = await SharedSubscription.open(
            connection, self._topology.commands, self._take, prefetch=self._prefetch
        )
        try:
            async with answered_within(self._topology.settings.connect_timeout_seconds):
                await subscription.begin_with_care(self._topology.settings.delivery_limit)
            self._shared = subscription
            self._part.up()
            stopping = asyncio.ensure_future(self._stop.wait())
            ended = await first_of(subscription.broken(), subscription.isolate_suspects(), stopping)
            if ended is not stopping:
                raise AMQPError(ended.result())
            await subscription.cancel()
            self._stopped.set()
            await self._finish.wait()
            await subscription.acknowledge_all()
            # What is not settled goes back in its order. By a `nack` it would not: RabbitMQ 3.10
            # returns more than 32 in the order of a hash.
            await subscription.channel.close()
        finally:
            self._shared = None
            await subscription.end()

    async def _pausing(self) -> None:
        raise AMQPError(await self._must_pause())
