"""Publishes batches, in order, each message confirmed by the broker.

`publish` returns when it is known of each message that the broker has taken it, or that it is the
message that the broker does not take. It waits out what is nobody's fault: a lost connection, a
broker that is silent to all. What comes again may come twice, never in another order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError, ChannelAccessRefused

from worker.broker.connection import (
    FAILURES,
    answered_within,
    closed,
    connect,
    is_blocked,
    refusal_of,
)
from worker.broker.errors import code_of, lacks_right
from worker.broker.publisher.isolation import IsolationTrial, is_outage, isolate
from worker.broker.publisher.outage import Outage
from worker.broker.publisher.outlet import BatchAttempt, Outlet, Patience
from worker.broker.topology import Topology
from worker.core.backoff import RECONNECT
from worker.core.errors import WorkerError
from worker.core.messages import Publication
from worker.core.tasks import cancel_all
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

BLOCKED = Instrument(
    "worker.broker.blocked",
    "gauge",
    "1",
    "1 while the broker takes no messages: its memory or disk alarm is set.",
)

BLOCKED_CHECK_SECONDS = 1.0
SUSPICIOUS_LOSSES = 3
"""Connections in a row that ended under the same messages, for no reason given: one of these may be
what ends them, as for the database."""

Faults = dict[int, BaseException]
"""What the broker said of messages that it did not take, by their numbers."""


class Publisher:
    """Publishes for as long as it is served with connections.

    `name` is that of its connections in the management. With `declares` it declares the topology
    on each.
    """

    def __init__(
        self,
        topology: Topology,
        part: Component,
        *,
        name: str = "",
        confirm_timeout_seconds: float = 30,
        declares: bool = True,
    ) -> None:
        self._topology = topology
        self._part = part
        self._name = name or f"{topology.namespace} events"
        self._declares = declares
        self._patience = Patience(confirm_timeout_seconds)
        self._outlet: Outlet | None = None
        self._connected = asyncio.Event()
        self._renew = asyncio.Event()
        self._blocked = False
        self._refusal: ChannelAccessRefused | None = None
        self._isolating = asyncio.Lock()
        self._waiting = 0  # batches that could not leave so far
        self.outage = Outage()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield BLOCKED, [({}, self._blocked)]

    async def serve(self, connection: AbstractConnection) -> None:
        """Make the connection usable by `publish` until it ends."""
        if self._declares:
            async with answered_within(self._topology.settings.connect_timeout_seconds):
                await self._topology.ensure(connection)
        self._renew.clear()
        outlet = await Outlet.open(connection, self._patience, lambda: self._blocked)
        self._begin(outlet)
        ends = [asyncio.ensure_future(closed(connection, channel)) for channel in outlet.channels]
        endings = [*ends, asyncio.ensure_future(self._renew.wait())]
        tasks = [
            asyncio.create_task(self._watch_blocked(connection)),
            asyncio.create_task(outlet.write()),
        ]
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            if refusal := next(filter(None, map(refusal_of, outlet.channels)), None):
                self._refusal = refusal
                raise refusal
            reasons = [ending.result() for ending in ends if ending.done()]
            raise AMQPError(reasons[0] if reasons else "messages were not accepted")
        finally:
            self._connected.clear()
            self._outlet = None
            self.outage.begin()
            await cancel_all([*endings, *tasks])

    def _begin(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._connected.set()
        if not self._waiting:
            self.outage.end()
        # A right that the account lacks shows only when it publishes: until something has been
        # confirmed again, a new connection is no better than the one that was refused.
        if self._refusal is None:
            self._part.up()
        else:
            self._part.down(str(lacks_right(self._refusal)))

    async def publish(self, publications: Sequence[Publication]) -> Faults:
        """Publish all; return when the broker has taken each but those whose faults these are.

        After a failure everything from the first unanswered message on is published again: what
        followed it may already have arrived, and must not stay ahead of it. That does not hold for
        what follows a message that is at fault itself.
        """
        faults: Faults = {}
        rest, attempt = list(range(len(publications))), 0
        while rest:
            await self._connected.wait()
            outlet = self._outlet
            if outlet is None:
                continue
            tried = await outlet.publish([publications[number] for number in rest])
            faults |= {rest[place]: fault for place, fault in tried.faults.items()}
            if tried.end is None:
                self._succeeded(outlet, again=attempt > 0)
                return faults
            attempt = 1 if len(tried.undecided) < len(rest) else attempt + 1
            rest = [rest[place] for place in tried.undecided]
            found, rest = await self._overcome(outlet, tried, publications, rest, attempt)
            faults |= found
        return faults

    async def publish_apart(self, publication: Publication) -> BaseException | None:
        """Publish over a connection of its own what ended others; return its fault, if it has one.

        Waits as `publish` does where it cannot be told.
        """
        faults, undecided = await self._isolate([publication], [0])
        return (await self.publish([publication])).get(0) if undecided else faults.get(0)

    async def is_well(self) -> bool:
        """Whether the broker, when asked, has all exchanges and queues, and takes messages.

        What is missing is declared, as at the start.
        """
        settings = self._topology.settings
        try:
            async with (
                connect(settings, f"{self._name} apart") as connection,
                answered_within(settings.connect_timeout_seconds),
            ):
                await self._topology.ensure(connection)
                return await (await Outlet.open(connection, self._patience)).answers()
        except (WorkerError, *FAILURES):
            return False

    async def _overcome(
        self,
        outlet: Outlet,
        tried: BatchAttempt,
        publications: Sequence[Publication],
        rest: list[int],
        attempt: int,
    ) -> tuple[Faults, list[int]]:
        """The faults of those that were found at fault, and what is to be published again."""
        assert tried.end is not None
        reason = str(tried.end) or repr(tried.end)
        log.warning("publishing again", messages=len(rest), reason=reason)
        self._doubt(outlet, tried.end)
        suspicious = code_of(tried.end) is not None or attempt >= SUSPICIOUS_LOSSES
        if suspicious and not is_outage(tried.end):
            faults, rest = await self._isolate(publications, rest)
            if not rest:
                return faults, rest
        else:
            faults = {}
        self.outage.begin()
        self._waiting += 1
        try:
            await asyncio.sleep(RECONNECT.delay(attempt))
            await self._connected.wait()
        finally:
            self._waiting -= 1
        return faults, rest

    async def _isolate(
        self, publications: Sequence[Publication], suspects: Sequence[int]
    ) -> tuple[Faults, list[int]]:
        settings = self._topology.settings
        async with (
            self._isolating,  # what is suspected by mistake is no storm of connections
            IsolationTrial(
                settings, f"{self._name} apart", self._patience, lambda: self._blocked
            ) as trial,
        ):
            faults, undecided = await isolate(trial, publications, suspects)
        if len(faults) + len(undecided) < len(suspects):
            self._succeeded(self._outlet, again=True)
        return faults, undecided

    def _succeeded(self, outlet: Outlet | None, *, again: bool) -> None:
        if outlet is not None and outlet is self._outlet and not self._blocked:
            self.outage.end()
            if again or self._refusal is not None:
                self._part.up()
        self._refusal = None

    def _doubt(self, outlet: Outlet, fault: BaseException) -> None:
        """What a failed attempt means for the connection."""
        if outlet is not self._outlet:
            return
        if (isinstance(fault, TimeoutError) and not self._blocked) or outlet.is_closed:
            self._leave()

    def _leave(self) -> None:
        """Use this connection no longer."""
        self._connected.clear()
        self._outlet = None
        self._renew.set()

    async def _watch_blocked(self, connection: AbstractConnection) -> None:
        while True:
            await asyncio.sleep(BLOCKED_CHECK_SECONDS)
            blocked = await is_blocked(connection)
            if blocked:
                self.outage.begin()
                self._part.down("the broker takes no messages: its memory or disk alarm is set")
            elif self._blocked:
                self.outage.end()
                self._part.up()
            self._blocked = blocked
