"""Names and arguments of all exchanges and queues, each from one place.

Everything is declared explicitly, defaults of the broker included: they changed between versions
(the delivery limit of quorum queues is 20 since RabbitMQ 4.0 and was none before).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from worker.core.errors import Misconfigured
from worker.settings.settings import BrokerSettings, Settings

log = structlog.get_logger(__name__)

DAY_MILLISECONDS = 86_400_000
DEAD_LETTERS_DELIVERY_LIMIT = 1_000_000
SEGMENT_BYTES = 50_000_000
"""A stream is cut in whole segments, so its bounds hold to about this much."""


PLUGIN_OF = {
    "x-modulus-hash": "rabbitmq_sharding",
    "x-consistent-hash": "rabbitmq_consistent_hash_exchange",
}
"""What has to be enabled for a type of exchange; RabbitMQ 4.3 has the first built in."""


@dataclass(frozen=True)
class Topology:
    """The broker's objects of one namespace.

    With one partition, `commands` is the queue that all workers share. With more, the exchange
    shares commands out by the hash of their routing key, each queue has one active consumer, and
    the queue `commands` is left for what is published straight to it.
    """

    namespace: str
    settings: BrokerSettings
    partition_count: int = 1
    """`WORKER_PARTITIONS`."""

    @classmethod
    def of(cls, settings: Settings) -> Topology:
        """The topology that these settings name."""
        return cls(settings.namespace, settings.broker, settings.partitions)

    @property
    def commands(self) -> str:
        """Name of the exchange, and of the queue, that commands go to."""
        return f"{self.namespace}.commands"

    @property
    def events(self) -> str:
        """Name of the exchange that events go to, and of the stream that keeps them."""
        return f"{self.namespace}.events"

    @property
    def dead_letters(self) -> str:
        """Name of the queue of dead letters."""
        return f"{self.namespace}.dead-letters"

    @property
    def partitioner(self) -> str:
        """Name of the exchange that shares commands out among the partitions."""
        return f"{self.namespace}.partitions"

    @cached_property
    def partitions(self) -> tuple[str, ...]:
        """Names of the partitions' queues; none where all workers share one queue."""
        if self.partition_count == 1:
            return ()
        return tuple(map(self.partition, range(1, self.partition_count + 1)))

    def partition(self, number: int) -> str:
        """Name of a partition's queue, from 1."""
        return f"{self.commands}.{number}"

    @cached_property
    def exchanges(self) -> Mapping[str, str]:
        """Every exchange with its type."""
        exchanges = {self.events: "topic", self.commands: "topic"}
        if self.partitions:
            exchanges[self.partitioner] = self.settings.partition_exchange
        return exchanges

    @cached_property
    def queues(self) -> Mapping[str, Mapping[str, Any]]:
        """Every queue with its arguments, in the order of declaration.

        What receives stands before what sends, so that nothing is lost meanwhile.
        """
        s = self.settings
        return {
            self.dead_letters: {
                "x-queue-type": "quorum",
                "x-message-ttl": round(s.dead_letters_retention_days * DAY_MILLISECONDS),
                "x-max-length-bytes": s.dead_letters_max_bytes,
                "x-overflow": "reject-publish",
                # RabbitMQ 4 would drop a letter that has been looked at twenty times.
                "x-delivery-limit": DEAD_LETTERS_DELIVERY_LIMIT,
            },
            self.events: {
                "x-queue-type": "stream",
                "x-max-age": f"{round(s.events_retention_days * 86_400)}s",
                "x-max-length-bytes": s.events_max_bytes,
                "x-stream-max-segment-size-bytes": SEGMENT_BYTES,
            },
            self.commands: self._commands_arguments,
        } | {
            name: self._commands_arguments | {"x-single-active-consumer": True}
            for name in self.partitions
        }

    @property
    def _commands_arguments(self) -> dict[str, Any]:
        return {
            "x-queue-type": "quorum",
            "x-delivery-limit": self.settings.delivery_limit,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_letters,
            # The broker's own dead-lettering may otherwise lose a message.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-max-length-bytes": self.settings.commands_max_bytes,
        }

    @cached_property
    def bindings(self) -> Mapping[str, tuple[str, str]]:
        """The exchange and the key that each bound queue is bound with."""
        # Of a hash exchange the key is the queue's weight.
        commands = dict.fromkeys(self.partitions, (self.partitioner, "1"))
        return {self.events: (self.events, "#")} | (
            commands or {self.commands: (self.commands, "#")}
        )

    async def ensure(self, connection: AbstractConnection) -> None:
        """Declare everything, or with `declare=false` check that it exists, as far as one may look.

        Raises `Misconfigured` with the argument that differs, the object that is missing, the right
        that the account lacks or the partition that would go unserved, and what mends it.
        """
        # First: with fewer partitions than there are, what follows would lead commands to the queue
        # that all share once more, beside their partition, where they are in no order.
        await self._refuse_strays(connection)
        await self.declare(connection)

    async def declare(self, connection: AbstractConnection) -> None:
        """The same, whatever partitions there are beyond these."""
        for exchange, type_ in self.exchanges.items():
            await self._try("exchange", exchange, connection, self._exchange, exchange, type_)
        for queue, arguments in self.queues.items():
            await self._try("queue", queue, connection, self._queue, queue, arguments)
        if self.partitions and self.settings.declare:
            await self._try("exchange", self.partitioner, connection, self._share_out)

    async def _refuse_strays(self, connection: AbstractConnection) -> None:
        """Raise `Misconfigured` if there is a partition beyond those that are served.

        What goes there would wait for ever: somebody has, or had, more partitions.
        """
        name = self.partition(1 if self.partition_count == 1 else self.partition_count + 1)
        try:
            async with connection.channel() as channel:
                found = await channel.declare_queue(name, passive=True)
        except (ChannelNotFoundEntity, ChannelAccessRefused):
            return
        raise Misconfigured(
            f"There is a queue {name!r} with {found.declaration_result.message_count} messages, "
            f"which WORKER_PARTITIONS={self.partition_count} leaves unserved. Set it to the number "
            "that the other workers have; or, to have fewer from now on, let them empty the queues "
            "(worker partitions show), stop them, and run: worker partitions apply"
        )

    async def _share_out(self, channel: AbstractChannel) -> None:
        """Lead commands to the partitions, and no longer to the one queue.

        In this order some may come to both, and take effect once; in the other, some to neither.
        """
        partitioner = await channel.get_exchange(self.partitioner, ensure=False)
        await partitioner.bind(self.commands, "#")
        queue = await channel.get_queue(self.commands, ensure=False)
        await queue.unbind(self.commands, "#")

    async def _exchange(self, channel: AbstractChannel, name: str, type_: str) -> None:
        if self.settings.declare:
            await channel.declare_exchange(name, type_, durable=True)
        else:
            await channel.get_exchange(name, ensure=True)

    async def _queue(
        self, channel: AbstractChannel, name: str, arguments: Mapping[str, Any]
    ) -> None:
        if not self.settings.declare:
            await channel.get_queue(name, ensure=True)
            return
        queue = await channel.declare_queue(name, durable=True, arguments=dict(arguments))
        if name in self.bindings:
            await queue.bind(*self.bindings[name])

    async def _try(
        self, kind: str, name: str, connection: AbstractConnection, declare: Any, *args: Any
    ) -> None:
        # A channel of its own: a refused declaration closes the channel.
        try:
            async with connection.channel() as channel:
                await declare(channel, *args)
        except ChannelPreconditionFailed as error:
            told = self._lacks_plugin(name, error) or _differs(kind, name, str(error))
            raise Misconfigured(told) from error
        except ChannelNotFoundEntity as error:
            # For a moment after its own start the broker says this of a stream that it has.
            if self.settings.declare or "down or inaccessible" in str(error):
                raise
            raise Misconfigured(
                f"The {kind} {name!r} does not exist and WORKER_BROKER__DECLARE=false forbids to "
                "make it. Let an administrator run the worker once with "
                "WORKER_BROKER__DECLARE=true"
            ) from error
        except ChannelAccessRefused as error:
            if not self.settings.declare:
                # RabbitMQ shows an object, from 4.2.6 on, only to who has a right on it; of who
                # only publishes dead letters by the default exchange nobody asks for one.
                log.info("the account may not see whether it exists", kind=kind, name=name)
                return
            raise Misconfigured(
                f"The broker account may not declare the {kind} {name!r}: {error}. Grant it the "
                "configure right (rabbitmqctl set_permissions), or have an administrator declare "
                "everything and set WORKER_BROKER__DECLARE=false"
            ) from error
        except AMQPError as error:
            if (lacking := self._lacks_plugin(name, error)) is None:
                raise
            raise Misconfigured(lacking) from error

    def _lacks_plugin(self, name: str, error: AMQPError) -> str | None:
        """What mends it if the broker does not know the partitioner's type; None if it does.

        That is a 503 up to RabbitMQ 3.13 and a 406 from 4.0 on, like other arguments.
        """
        type_ = self.settings.partition_exchange
        if name != self.partitioner or "exchange type" not in str(error):
            return None
        return (
            f"WORKER_PARTITIONS={self.partition_count} needs exchanges of the type {type_}, which "
            "this RabbitMQ does not know. On each of its nodes: "
            f"rabbitmq-plugins enable {PLUGIN_OF[type_]}"
        )


def _differs(kind: str, name: str, reply: str) -> str:
    found = re.search(
        r"inequivalent arg '(?P<arg>[^']+)'.*?received (?P<ours>.+?) but current is (?P<theirs>.+)",
        reply,
        re.DOTALL,
    )
    what = (
        f"{found['arg']} is {found['theirs'].strip()}, this worker declares {found['ours'].strip()}"
        if found
        else reply
    )
    setting = found and _SETTING_OF.get(found["arg"])
    mend = f"Set {setting} to what is there, or drain" if setting else "Drain"
    return (
        f"The {kind} {name!r} exists with other arguments: {what}. {mend} and delete it "
        f"(rabbitmqctl delete_{kind} {name}) so that it is made anew"
    )


_SETTING_OF = {
    "x-delivery-limit": "WORKER_BROKER__DELIVERY_LIMIT",
    "x-max-age": "WORKER_BROKER__EVENTS_RETENTION_DAYS",
    "x-message-ttl": "WORKER_BROKER__DEAD_LETTERS_RETENTION_DAYS",
    "x-max-length-bytes": "the WORKER_BROKER__…_MAX_BYTES setting of this queue",
}
