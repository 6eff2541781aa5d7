"""How the commands queues stand, and what brings them to another number of partitions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import ChannelNotFoundEntity

from worker.broker.topology import Topology
from worker.core.errors import Misconfigured


@dataclass(frozen=True)
class QueueState:
    """One of the commands queues, as the broker tells of it."""

    queue: str
    partition: int | None
    """Its number, from 1; `None` for the queue that all workers share."""
    messages: int | None
    """How many wait to be delivered; `None` if there is no such queue."""
    consumers: int
    """Of a partition: 1 if it has an active one; RabbitMQ 3.10 does not count those in line."""
    served: bool
    """Whether workers with this number of partitions take from it."""


async def look(connection: AbstractConnection, topology: Topology) -> list[QueueState]:
    """All commands queues: the shared one, the partitions, and those beyond their number."""
    states = [await _state(connection, topology, None)]
    number = 0
    while True:
        number += 1
        state = await _state(connection, topology, number)
        if not state.served and state.messages is None:
            return states
        states.append(state)


async def apply(connection: AbstractConnection, topology: Topology) -> list[QueueState]:
    """Make the queues that this number of partitions needs, and remove those beyond it.

    Returns what was removed. Raises `Misconfigured`, with nothing changed, where that would move
    keys past commands that still wait, or workers still run.
    """
    before = await look(connection, topology)
    strays = [state for state in before if not state.served]
    there = [state for state in before if state.messages is not None]
    if there and (strays or len(there) < len(before)):
        _refuse_if_used(there)
    # An administrator's command: `declare=false` is for the run-time account.
    topology = replace(topology, settings=topology.settings.model_copy(update={"declare": True}))
    await topology.declare(connection)
    async with connection.channel() as channel:
        if not topology.partitions:
            await channel.exchange_delete(topology.partitioner)
        for stray in strays:
            queue = await channel.get_queue(stray.queue, ensure=False)
            await queue.unbind(topology.partitioner, "1")
    # Publishers may not have paused; what came in between is not to be lost.
    _refuse_if_used([await _state(connection, topology, stray.partition) for stray in strays])
    async with connection.channel() as channel:
        for stray in strays:
            await channel.queue_delete(stray.queue)
    return strays


def _refuse_if_used(states: Iterable[QueueState]) -> None:
    used = [state for state in states if state.messages or state.consumers]
    if used:
        names = ", ".join(state.queue for state in used)
        raise Misconfigured(
            f"Commands wait in, or workers take from: {names}. Pause the publishers, let workers "
            "with the number of partitions that there is empty the queues (worker partitions "
            "show), stop them, and apply again"
        )


async def _state(
    connection: AbstractConnection, topology: Topology, number: int | None
) -> QueueState:
    name = topology.commands if number is None else topology.partition(number)
    served = number is None or name in topology.partitions
    try:
        # A channel of its own: it is closed where there is no such queue.
        async with connection.channel() as channel:
            queue = await channel.declare_queue(name, passive=True)
    except ChannelNotFoundEntity:
        return QueueState(name, number, None, 0, served)
    found = queue.declaration_result
    return QueueState(name, number, found.message_count or 0, found.consumer_count or 0, served)
