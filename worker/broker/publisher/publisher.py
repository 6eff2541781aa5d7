"""Publishes whole groups, in order, each message confirmed by the broker.

`publish` returns when the broker has everything. It never gives up: a lost connection, a missing
confirm, a refusal or a returned message are waited out and published again. What comes again may
come twice, never in another order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from weakref import WeakValueDictionary

import structlog
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import (
    AMQPError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    DeliveryError,
    PublishError,
)
from pamqp.commands import Basic

from worker.broker.connection import answered_within, closed, is_blocked, open_channel, refusal_of
from worker.broker.errors import lacks_right
from worker.broker.protocol import properties
from worker.broker.protocol.frame_writer import can_frame
from worker.broker.publisher.batch import BurstChannel, open_bursts
from worker.broker.topology import Topology
from worker.core.backoff import RECONNECT
from worker.core.messages import Publication, new_id
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Part

log = structlog.get_logger(__name__)

BLOCKED = Instrument(
    "worker.broker.blocked",
    "gauge",
    "1",
    "1 while the broker takes no messages: its memory or disk alarm is set.",
)

BLOCKED_CHECK_SECONDS = 1.0
LEAST_PATIENCE = 0.1
"""Of the longest that confirms are waited for. A broker that is well confirms within milliseconds;
but RabbitMQ 3.10 may never confirm what it was sent while the leader of a stream moved to another
node."""
PATIENCE = 4
"""So many times as long as the broker has just taken."""


class Publisher:
    """Publishes for as long as it is served with connections."""

    def __init__(
        self, topology: Topology, part: Part, *, confirm_timeout_seconds: float = 30
    ) -> None:
        self._topology = topology
        self._part = part
        self._most_patience = confirm_timeout_seconds
        self._be_patient(0)
        self._channel: Channel | None = None
        self._connected = asyncio.Event()
        self._renew = asyncio.Event()
        self._blocked = False
        self._refusal: ChannelAccessRefused | None = None
        self._bursts: BurstChannel | None = None
        self._attempt_ids = count()
        self._prefix = new_id()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield BLOCKED, [({}, self._blocked)]

    async def serve(self, connection: AbstractConnection) -> None:
        """Make the connection usable by `publish` until it ends."""
        async with answered_within(self._topology.settings.connect_timeout_seconds):
            await self._topology.ensure(connection)
        self._renew.clear()
        self._channel = await open_channel(connection)
        self._bursts = await open_bursts(connection)
        self._connected.set()
        # A right that the account lacks shows only when it publishes: until something has been
        # confirmed again, a new connection is no better than the one that was refused.
        if self._refusal is None:
            self._part.up()
        else:
            self._part.down(str(lacks_right(self._refusal)))
        channels = [self._channel, *([self._bursts.channel] if self._bursts else [])]
        ends = [asyncio.ensure_future(closed(connection, channel)) for channel in channels]
        endings = [*ends, asyncio.ensure_future(self._renew.wait())]
        tasks = [asyncio.create_task(self._watch_blocked(connection))]
        if self._bursts is not None:
            tasks.append(asyncio.create_task(self._bursts.write()))
        try:
            await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
            if refusal := next(filter(None, map(refusal_of, channels)), None):
                self._refusal = refusal
                raise refusal
            reasons = [end.result() for end in ends if end.done()]
            raise AMQPError(reasons[0] if reasons else "messages were not accepted")
        finally:
            self._connected.clear()
            self._channel, self._bursts = None, None
            for task in (*endings, *tasks):
                task.cancel()
            await asyncio.gather(*endings, *tasks, return_exceptions=True)

    async def publish(self, publications: Sequence[Publication]) -> None:
        """Publish all; return when the broker has confirmed each.

        Copies, which dead letters are, leave first: who reads in an event of one finds it in place,
        and the others may leave as a burst. The order of each kind is kept.

        After a failure everything from the first unconfirmed message on is published again: what
        followed it may already have arrived, and must not stay ahead of it.
        """
        own = [each for each in publications if each.copy_of is None]
        if len(own) < len(publications):
            copies = [each for each in publications if each.copy_of is not None]
            await self._until_confirmed(copies)
        await self._until_confirmed(own)

    async def _until_confirmed(self, publications: Sequence[Publication]) -> None:
        rest, attempt = publications, 0
        while rest:
            await self._connected.wait()
            channel = self._channel
            if channel is None:
                continue
            confirmed, fault = await self._publish_once(channel, rest)
            rest = rest[confirmed:]
            if fault is None:
                again, self._refusal = attempt or self._refusal, None
                if again and self._channel is channel and not self._blocked:
                    self._part.up()
                continue
            attempt = 1 if confirmed else attempt + 1
            log.warning("publishing again", messages=len(rest), reason=str(fault) or repr(fault))
            self._doubt(channel, fault)
            await asyncio.sleep(RECONNECT.delay(attempt))

    async def _publish_once(
        self, channel: Channel, publications: Sequence[Publication]
    ) -> tuple[int, Exception | None]:
        """How many of the first ones were confirmed, and what became of the next."""
        if self._bursts is not None and all(map(can_frame, publications)):
            return await self._burst_once(self._bursts, publications)
        sends = [asyncio.ensure_future(self._send(channel, each)) for each in publications]
        try:
            await self._all_answered(sends)
        finally:
            for send in sends:
                send.cancel()
        for number, send in enumerate(sends):
            if not send.done():
                return number, TimeoutError("the broker did not confirm in time")
            if send.cancelled():  # the channel's end cancels its publishes
                return number, ConnectionError("the channel was closed")
            fault = send.exception()
            if fault is not None:
                return number, fault if isinstance(fault, Exception) else ConnectionError(
                    str(fault)
                )
        return len(sends), None

    async def _burst_once(
        self, bursts: BurstChannel, publications: Sequence[Publication]
    ) -> tuple[int, Exception | None]:
        ids = [f"{self._prefix}-{next(self._attempt_ids)}" for _ in publications]
        try:
            burst = bursts.send(publications, ids)
            await self._all_answered([burst.complete])
        except (AMQPError, ChannelInvalidStateError, ConnectionError) as error:
            return 0, error
        faults = {
            number: fault
            for number, fault in burst.faults.items()
            if publications[number].needs_queue
        }
        if burst.unanswered is not None:
            lost = burst.complete.done()
            faults.setdefault(
                burst.unanswered,
                ConnectionError("the channel was closed")
                if lost
                else TimeoutError("the broker did not confirm in time"),
            )
        first = min(faults, default=None)
        return (len(publications), None) if first is None else (first, faults[first])

    async def _all_answered(self, sends: Sequence[asyncio.Future[None]]) -> None:
        """Return when all are, or when the broker has been silent for too long.

        While it blocks publishers it reads nothing: what was written waits there, and to write it
        again would only pile it up.
        """
        unanswered, now = set(sends), asyncio.get_running_loop().time
        while unanswered:
            asked = now()
            answered, unanswered = await asyncio.wait(unanswered, timeout=self._patience)
            if answered:
                self._be_patient(PATIENCE * (now() - asked))
            elif not self._blocked:
                return

    def _be_patient(self, seconds: float) -> None:
        """How long the broker may be silent from now on, within the bounds for that."""
        self._patience = min(
            max(seconds, LEAST_PATIENCE * self._most_patience), self._most_patience
        )

    async def _send(self, channel: Channel, publication: Publication) -> None:
        own = properties.of(publication)
        if publication.copy_of is None:
            own.message_id = f"{self._prefix}-{next(self._attempt_ids)}"
            await self._send_with(channel, publication, own)
            return
        # aiormq matches a returned message by its message_id. A dead letter keeps the one it came
        # with, which may be the command's identity; so of two with the same, the second waits.
        if not own.message_id:
            await self._send_with(channel, publication, own)
            return
        async with self._locks.setdefault(own.message_id, asyncio.Lock()):
            await self._send_with(channel, publication, own)

    async def _send_with(
        self, channel: Channel, publication: Publication, own: Basic.Properties
    ) -> None:
        try:
            await channel.basic_publish(
                publication.body,
                exchange=publication.exchange,
                routing_key=publication.routing_key,
                properties=own,
                mandatory=True,
                wait=False,
            )
        except (PublishError, DeliveryError):
            # An asker that has gone, or takes no more, holds up nobody.
            if publication.needs_queue:
                raise

    def _doubt(self, channel: Channel, fault: Exception) -> None:
        """What a failed publish means for the connection."""
        if isinstance(fault, PublishError):
            # No queue takes it: declaring the topology again, on a new connection, mends that.
            key = getattr(fault.frame, "routing_key", "?")
            self._part.down(f"a message to {key!r} was returned: no queue takes it")
            self._renew.set()
        elif isinstance(fault, DeliveryError):
            self._part.down("the broker refuses messages: a queue is full, or its leader is lost")
        elif isinstance(fault, TimeoutError) and not self._blocked and not self._renew.is_set():
            self._be_patient(2 * self._patience)  # should it only be slow
            self._renew.set()
        if channel.is_closed:
            self._renew.set()

    async def _watch_blocked(self, connection: AbstractConnection) -> None:
        while True:
            await asyncio.sleep(BLOCKED_CHECK_SECONDS)
            blocked = await is_blocked(connection)
            if blocked:
                self._part.down("the broker takes no messages: its memory or disk alarm is set")
            elif self._blocked:
                self._part.up()
            self._blocked = blocked
