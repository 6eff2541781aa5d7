"""Declares the exchanges, queues and bindings of a topology, or checks that they are there.

All of it is idempotent: what exists as it should be stays as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)
from pamqp.commands import Queue

from worker.broker.connection import open_channel
from worker.broker.refused_declaration import differs, lacks_plugin, over_limit
from worker.core.errors import Misconfigured

if TYPE_CHECKING:
    from worker.broker.topology import Topology

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FoundObjects:
    """What there is of a topology."""

    missing: set[tuple[str, str]]
    """Kind and name of what does not exist."""
    queues: Mapping[str, Queue.DeclareOk]
    """How each queue stands that does."""


class Declaration:
    """Asks the broker for the objects of a topology, over one connection.

    One channel serves until the broker refuses something, which closes it; then another is opened.
    """

    def __init__(self, topology: Topology, connection: AbstractConnection) -> None:
        self._topology = topology
        self._connection = connection
        self._may_declare = topology.settings.declare
        self._channel: Channel | None = None
        self._hidden: set[str] = set()
        """What the account may not see."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None and not self._channel.is_closed:
            await self._channel.close()

    async def ensure(self) -> None:
        """As `Topology.ensure`."""
        # First: with fewer partitions than there are, what follows would lead commands to the queue
        # that all share once more, beside their partition, where they are in no order.
        await self.refuse_strays()
        await self.declare()

    async def declare(self, *, in_use: bool = False) -> None:
        """As `Topology.declare`; while `in_use`, no queue is made that is consumed from.

        RabbitMQ 3.10 takes some 20 ms to tell consumers that their queue was deleted. If it is made
        again by then, it tells them nothing, counts them as consumers of the new one, has that hand
        out as many messages as their prefetch allows, and delivers none of them.
        """
        topology = self._topology
        made = topology.consumed if in_use else ()
        for exchange, type_ in topology.exchanges.items():
            await self._try("exchange", exchange, self._exchange(exchange, type_))
        for queue, arguments in topology.queues.items():
            asked = self._queue(queue, arguments, is_made=queue in made)
            await self._try("queue", queue, asked)
        if topology.partitions and self._may_declare:
            await self._try("exchange", topology.partitioner, self._share_out())

    async def look(self) -> FoundObjects:
        """What there is of the topology, as far as the account may see."""
        topology, missing, queues = self._topology, set(), {}
        for kind, names in (("exchange", topology.exchanges), ("queue", topology.queues)):
            for name in names:
                try:
                    state = await self._look(kind, name)
                except ChannelNotFoundEntity as error:
                    if not _is_starting(error):
                        missing.add((kind, name))
                except ChannelAccessRefused:
                    self._hidden.add(name)
                else:
                    if state is not None:
                        queues[name] = state
        return FoundObjects(missing, queues)

    async def compare(self, found: FoundObjects) -> None:
        """Raise `Misconfigured` where what there is has other arguments; make nothing."""
        topology = self._topology
        for exchange, type_ in topology.exchanges.items():
            if ("exchange", exchange) not in found.missing:
                await self._try("exchange", exchange, self._exchange(exchange, type_))
        for queue, arguments in topology.queues.items():
            if ("queue", queue) not in found.missing:
                asked = self._queue(queue, arguments, is_made=False, binds=False)
                await self._try("queue", queue, asked)

    async def refuse_strays(self) -> None:
        """Raise `Misconfigured` if there is a partition beyond those that are served.

        What goes there would wait for ever: somebody has, or had, more partitions.
        """
        count = self._topology.partition_count
        name = self._topology.partition(1 if count == 1 else count + 1)
        try:
            found = await (await self._opened()).queue_declare(name, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused):
            return
        raise Misconfigured(
            f"There is a queue {name!r} with {found and found.message_count} messages, "
            f"which WORKER_PARTITIONS={count} leaves unserved. Set it to the number "
            "that the other workers have; or, to have fewer from now on, let them empty the queues "
            "(worker partitions show), stop them, and run: worker partitions apply"
        )

    async def _opened(self) -> Channel:
        if self._channel is None or self._channel.is_closed:
            self._channel = await open_channel(self._connection)
        return self._channel

    async def _look(self, kind: str, name: str) -> Queue.DeclareOk | None:
        """How a queue stands. Raises what the broker says of one that is not."""
        if name in self._hidden:
            return None
        channel = await self._opened()
        if kind == "exchange":
            await channel.exchange_declare(name, passive=True)
            return None
        return await channel.queue_declare(name, passive=True)

    async def _exchange(self, name: str, type_: str) -> None:
        if not self._may_declare:
            await self._look("exchange", name)
            return
        channel = await self._opened()
        await channel.exchange_declare(name, exchange_type=type_, durable=True)

    async def _queue(
        self, name: str, arguments: Mapping[str, Any], *, is_made: bool, binds: bool = True
    ) -> None:
        if not self._may_declare:
            await self._look("queue", name)
            return
        channel = await self._opened()
        if not is_made:
            await channel.queue_declare(name, durable=True, arguments=dict(arguments))
        if binds and (binding := self._topology.bindings.get(name)) is not None:
            await channel.queue_bind(name, *binding)

    async def _share_out(self) -> None:
        """Lead commands to the partitions, and no longer to the one queue.

        In this order some may come to both, and take effect once; in the other, some to neither.
        """
        channel, commands = await self._opened(), self._topology.commands
        await channel.exchange_bind(self._topology.partitioner, commands, "#")
        await channel.queue_unbind(commands, commands, "#")

    async def _try(self, kind: str, name: str, asked: Awaitable[None]) -> None:
        try:
            await asked
        except ChannelPreconditionFailed as error:
            told = lacks_plugin(self._topology, name, error) or over_limit(kind, name, str(error))
            raise Misconfigured(told or differs(kind, name, str(error))) from error
        except ChannelNotFoundEntity as error:
            if self._may_declare or _is_starting(error):
                raise
            raise Misconfigured(
                f"The {kind} {name!r} does not exist and WORKER_BROKER__DECLARE=false forbids to "
                "make it. Let an administrator run the worker once with "
                "WORKER_BROKER__DECLARE=true"
            ) from error
        except ChannelAccessRefused as error:
            if not self._may_declare:
                # RabbitMQ shows an object, from 4.2.6 on, only to who has a right on it; of who
                # only publishes dead letters by the default exchange nobody asks for one.
                log.info("the account may not see whether it exists", kind=kind, name=name)
                self._hidden.add(name)
                return
            raise Misconfigured(
                f"The broker account may not declare the {kind} {name!r}: {error}. Grant it the "
                "configure right (rabbitmqctl set_permissions), or have an administrator declare "
                "everything and set WORKER_BROKER__DECLARE=false"
            ) from error
        except AMQPError as error:
            if (lacking := lacks_plugin(self._topology, name, error)) is None:
                raise
            raise Misconfigured(lacking) from error


def _is_starting(error: ChannelNotFoundEntity) -> bool:
    """Whether it exists: for a moment after its start a broker says this of a stream it has."""
    return "down or inaccessible" in str(error)
