"""Names and arguments of all exchanges and queues, each from one place.

Everything is declared explicitly, defaults of the broker included: they changed between versions
(the delivery limit of quorum queues is 20 since RabbitMQ 4.0 and was none before).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aio_pika.abc import AbstractConnection

from worker.broker.declaration import Declaration
from worker.settings.settings import BrokerSettings, Settings

DAY_MILLISECONDS = 86_400_000
DEAD_LETTERS_DELIVERY_LIMIT = 1_000_000
SEGMENT_BYTES = 50_000_000
"""A stream is cut in whole segments, so its bounds hold to about this much."""


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

    @property
    def consumed(self) -> tuple[str, ...]:
        """Names of the queues that workers take commands from."""
        return (self.commands, *self.partitions)

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
        async with Declaration(self, connection) as declaration:
            await declaration.ensure()

    async def declare(self, connection: AbstractConnection) -> None:
        """The same, whatever partitions there are beyond these."""
        async with Declaration(self, connection) as declaration:
            await declaration.declare()
