"""All partitions of the commands, and this worker's fair share of them.

The broker makes the first in line active and leaves it so: a worker that starts first would have
all partitions, and one that starts later none. So each looks, every two seconds, how many workers
there are, and lets go of what is more than its share; the next in line takes it on, and lets go of
it in turn if it has enough. Workers are counted by the consumers of the shared queue, to which each
subscribes once, after it has taken its places in line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from math import ceil
from typing import Any

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelAccessRefused

from worker.broker.connection import open_channel
from worker.broker.consumer.partition import Partition
from worker.broker.consumer.subscription import SUSPECT_DELIVERIES, Take
from worker.broker.topology import Topology
from worker.core.tasks import first_of, gather_all
from worker.telemetry.instruments import Instrument, Reading

log = structlog.get_logger(__name__)

ACTIVE = Instrument(
    "worker.partitions.active",
    "gauge",
    "{partition}",
    "Partitions whose commands come to this process, as far as any have come.",
)

BALANCE_SECONDS = 2
"""How often a worker looks whether it has more than its share."""

LOOK_SECONDS = 0.05
"""How long it waits for a first command in one line before it joins the next."""


class Partitions:
    """Serves every partition of the topology, and keeps to a fair share of them."""

    def __init__(self, topology: Topology, take: Take, *, prefetch: int) -> None:
        self.standing = asyncio.Event()
        """Set while this worker stands in all lines."""
        self._roster = topology.commands
        # Partitions that move are returned and no crash: so a few returns more than elsewhere, and
        # well below half of the limit, which convicts.
        suspect_from = max(SUSPECT_DELIVERIES, topology.settings.delivery_limit // 4)
        patience = topology.settings.connect_timeout_seconds
        self._partitions = [
            Partition(queue, take, prefetch=prefetch, suspect_from=suspect_from, patience=patience)
            for queue in topology.partitions
        ]

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield ACTIVE, [({}, len(self.active))]

    @property
    def active(self) -> list[str]:
        """Queues whose commands come to this worker, as far as any have come."""
        return [partition.queue for partition in self._partitions if partition.active]

    @property
    def in_flight(self) -> int:
        """How many commands have come from them and are not acknowledged."""
        return sum(partition.in_flight for partition in self._partitions)

    def starving(self, waiting: Mapping[str, int]) -> Iterator[str]:
        """Queues that this worker should be given commands from, and is not."""
        for partition in self._partitions:
            if partition.starves(waiting.get(partition.queue, 0)):
                yield partition.queue

    async def serve(self, connection: AbstractConnection, finish: asyncio.Event) -> None:
        """Stand in all lines until `finish`. Raises what breaks any of them."""
        self.standing.clear()
        turns = [asyncio.Event() for _ in self._partitions] + [self.standing]
        turns[0].set()
        if self._partitions:
            lines = zip(self._partitions, turns, turns[1:], strict=False)
            await gather_all(
                *(self._serve_one(*line, connection, finish) for line in lines),
                _until(finish, self._keep_balanced(connection)),
            )

    async def _serve_one(
        self,
        partition: Partition,
        turn: asyncio.Event,
        next_turn: asyncio.Event,
        connection: AbstractConnection,
        finish: asyncio.Event,
    ) -> None:
        """Serve a partition from its turn on.

        The next one's turn comes when no suspect is tried in this one: so what follows there is
        still with the broker, and a crash does not count against it.
        """
        standing = asyncio.Event()

        async def let_the_next_begin() -> None:
            await standing.wait()
            await partition.looked_at(LOOK_SECONDS)
            next_turn.set()

        await _until(finish, turn.wait())
        await gather_all(
            partition.serve(connection, finish, standing), _until(finish, let_the_next_begin())
        )

    async def _keep_balanced(self, connection: AbstractConnection) -> None:
        channel = await open_channel(connection)
        while True:
            await asyncio.sleep(BALANCE_SECONDS)
            active = [partition for partition in self._partitions if partition.active]
            if len(active) < 2:
                continue
            try:
                roster = await channel.queue_declare(self._roster, passive=True)
            except ChannelAccessRefused as error:
                # RabbitMQ 4.2.6 and 4.3.0: for a look they want the right to configure.
                log.warning("partitions are not shared out among workers", reason=str(error))
                return
            share = fair_share(len(self._partitions), roster.consumer_count or 1)
            if len(active) > share:
                log.info("letting go of partitions", active=len(active), share=share)
            for partition in active[share:]:
                partition.release()


async def _until(finish: asyncio.Event, work: Awaitable[Any]) -> None:
    """Do the work, but no longer than until `finish`."""
    (await first_of(work, finish.wait())).result()


def fair_share(partitions: int, workers: int) -> int:
    """The most partitions that one of so many workers keeps.

    >>> fair_share(8, 2), fair_share(8, 3), fair_share(8, 9)
    (4, 3, 1)
    """
    return ceil(partitions / max(workers, 1))
