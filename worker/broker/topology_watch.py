"""Notices what is removed beneath a running worker, and makes it again where it may.

A broker tells nobody that an exchange, a binding or a stream is gone: publishers get an error, or
their messages go nowhere. So every few seconds the watch looks for each exchange and queue, and
declares all of the topology again. AMQP has no way to look for a binding; to bind twice is no
error, so each is bound again whether it was there or not.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError

from worker.broker.connection import Serve, answered_within
from worker.broker.declaration import Declaration
from worker.broker.topology import Topology
from worker.core.errors import Misconfigured, Unreachable
from worker.core.tasks import first_of
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Part

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks: what is removed is back within 10 s, also where a look takes its time."""

OBJECT = "worker.topology.object"
MISSING = Instrument(
    "worker.topology.missing",
    "counter",
    "{object}",
    "Exchanges and queues that were found missing while the worker ran; bindings do not show.",
    (OBJECT,),
)


class TopologyWatch:
    """Keeps the topology whole for as long as a connection is served."""

    def __init__(self, topology: Topology, part: Part) -> None:
        self._topology = topology
        self._part = part
        self._missing: set[str] = set()
        self._consumers: int | None = None
        self._counts: Counter[str] = Counter()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield MISSING, [({OBJECT: name}, count) for name, count in self._counts.items()]

    def before_and_beside(self, serve: Serve) -> Serve:
        """Serve a connection once the topology is whole, and watch that as long as it is served."""

        async def watched(connection: AbstractConnection) -> None:
            async with Declaration(self._topology, connection) as declaration:
                async with answered_within(self._topology.settings.connect_timeout_seconds):
                    await declaration.ensure()
                self._found_whole()
                ended = await first_of(serve(connection), self._keep_whole(declaration, connection))
                ended.result()

        return watched

    async def _keep_whole(self, declaration: Declaration, connection: AbstractConnection) -> None:
        """Look again and again; raises only when the connection has ended."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                async with answered_within(self._topology.settings.connect_timeout_seconds):
                    await self._look(declaration)
            except (Misconfigured, Unreachable) as fault:
                self._part.down(str(fault))
            except AMQPError as error:
                if connection.is_closed:
                    raise
                self._part.down(str(error) or type(error).__name__)
            else:
                self._found_whole()

    async def _look(self, declaration: Declaration) -> None:
        missing = await declaration.missing()
        for name in missing - self._missing:
            self._counts[name] += 1
            log.warning("missing on the broker", object=name)
        self._still_missing(missing)
        # Who has partitions leads commands past the shared queue: to bind that again would undo
        # it. They show by their consumers; to ask for a partition that is not there each time
        # would fill the broker's log with errors.
        if (consumers := await declaration.consumers()) != self._consumers:
            await declaration.refuse_strays()
            self._consumers = consumers
        await declaration.declare()

    def _still_missing(self, missing: set[str]) -> None:
        for name in self._missing - missing:
            log.info("there again", object=name)
        self._missing = missing

    def _found_whole(self) -> None:
        self._still_missing(set())
        self._part.up()
