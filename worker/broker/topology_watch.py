"""Notices what is removed beneath a running worker, and makes it again where it may.

A broker tells nobody that an exchange, a binding or a stream is gone: publishers get an error, or
their messages go nowhere. So every few seconds the watch looks for each exchange and queue, and
declares all of the topology again. AMQP has no way to look for a binding; to bind twice is no
error, so each is bound again whether it was there or not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError

from worker.broker.connection import Serve, answered_within
from worker.broker.declaration import Declaration, FoundObjects
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured, Unreachable
from worker.core.tasks import first_of
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks: what is removed is back within 10 s, also where a look takes its time."""

OBJECT = "object"
MISSING = Instrument(
    "worker.topology.missing",
    "counter",
    "{object}",
    "Exchanges and queues that were found missing while the worker ran; bindings do not show.",
    (OBJECT,),
)
STARVED = Instrument(
    "worker.subscriptions.starved",
    "counter",
    "{subscription}",
    "Subscriptions that were renewed because commands waited and the broker delivered none.",
)

Starving = Callable[[Mapping[str, int]], list[str]]
"""Given how many messages wait in each queue: those from which none comes."""


class TopologyWatch:
    """Keeps the topology whole for as long as a connection is served."""

    def __init__(self, topology: Topology, part: Component) -> None:
        self._topology = topology
        self._part = part
        self._missing: set[str] = set()
        self._consumers: int | None = None
        self._counts: Counter[str] = Counter()
        self._starved = 0

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instruments, for `/metrics`."""
        yield MISSING, [({OBJECT: name}, count) for name, count in self._counts.items()]
        yield STARVED, [({}, self._starved)]

    def around(self, serve: Serve, starving: Starving) -> Serve:
        """Serve a connection once the topology is whole, and watch it for as long.

        The connection is left when a queue that is consumed from is gone or delivers nothing.
        """

        async def watched(connection: AbstractConnection) -> None:
            async with Declaration(self._topology, connection) as declaration:
                async with self._patience():
                    await declaration.ensure()
                self._found_whole()
                watching = self._keep_whole(declaration, connection, starving)
                (await first_of(serve(connection), watching)).result()

        return watched

    async def _keep_whole(
        self, declaration: Declaration, connection: AbstractConnection, starving: Starving
    ) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                async with self._patience():
                    found = await declaration.look()
                    self._tell(found)
                    self._leave_if_starving(found, starving)
                    await self._refuse_others_partitions(declaration, found)
                    await declaration.declare(in_use=True)
            except (Misconfigured, Unreachable) as fault:
                self._part.down(str(fault))
            except _Starving:
                raise
            except AMQPError as error:
                if connection.is_closed:
                    raise
                self._part.down(str(error) or type(error).__name__)
            else:
                self._found_whole()

    def _patience(self) -> AbstractAsyncContextManager[None]:
        return answered_within(self._topology.settings.connect_timeout_seconds)

    def _tell(self, found: FoundObjects) -> None:
        missing = {f"{kind} {name}" for kind, name in found.missing}
        for name in missing - self._missing:
            self._counts[name] += 1
            log.warning("missing on the broker", object=name)
        self._still_missing(missing)

    def _leave_if_starving(self, found: FoundObjects, starving: Starving) -> None:
        for queue in self._topology.consumed:
            if ("queue", queue) in found.missing:
                raise _Starving(f"the queue {queue!r} was deleted")
        waiting = {name: queue.message_count or 0 for name, queue in found.queues.items()}
        for queue in starving(waiting):
            self._starved += 1
            raise _Starving(f"commands wait in {queue!r}, and the broker delivers none")

    async def _refuse_others_partitions(
        self, declaration: Declaration, found: FoundObjects
    ) -> None:
        """Raise `Misconfigured` before the commands are led past others' partitions again.

        Workers with more partitions show by their consumers. To ask for a partition that is not
        there each time would fill the broker's log with errors.
        """
        commands = found.queues.get(self._topology.commands)
        consumers = (commands and commands.consumer_count) or 0
        if consumers != self._consumers:
            self._consumers = None
            await declaration.refuse_strays()
            self._consumers = consumers

    def _found_whole(self) -> None:
        self._still_missing(set())
        self._part.up()

    def _still_missing(self, missing: set[str]) -> None:
        for name in self._missing - missing:
            log.info("there again", object=name)
        self._missing = missing


class _Starving(AMQPError):
    """The subscription is to be renewed."""
