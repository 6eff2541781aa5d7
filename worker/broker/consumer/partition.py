"""One partition's queue, as one of the workers in its line of consumers sees it.

The broker has one active consumer for each partition: the first in line. All others wait. Where the
active one goes, everything that it has not acknowledged goes back to its place in the queue before
the next one is given anything; but only under two conditions, both of them found out by trying.

*Its channel must end.* A consumer that is merely cancelled keeps what it holds while the next one
already gets what comes after. So nothing is ever cancelled here, nor returned by itself.

*The next one must have room for all of it.* What a quorum queue gets back stands in a line of its
own, and what comes back while that line is not empty goes to its end. So all consumers of a
partition have the same prefetch, and none begins with less.

Therefore suspects (`shared.py`) are met in another way: they come with all that follows them, which
is held back here until they are done. What ends the process is then the first in the queue, so only
the first that comes is convicted by its count; the others have only been in its company.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import replace

from aio_pika.abc import AbstractConnection
from aiormq.exceptions import AMQPError

from worker.broker.connection import answered_within
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import CLEARING_SECONDS, Subscription, Take
from worker.core.messages import Delivery
from worker.core.tasks import first_of


class Partition:
    """Stands in line for the partition's queue, and hands its commands on when it is active.

    A command that was delivered `suspect_from` times before is a suspect. The broker has
    `patience` seconds to answer.
    """

    def __init__(
        self, queue: str, take: Take, *, prefetch: int, suspect_from: int, patience: float
    ) -> None:
        self.queue = queue
        self.active = False
        """Whether a command has come since it last stood in line: it is the active one then."""
        self._subscription: Subscription | None = None
        self._take = take
        self._prefetch = prefetch
        self._suspect_from = suspect_from
        self._patience = patience
        self._release = asyncio.Event()
        self._came = asyncio.Event()
        self._suspected = asyncio.Event()
        self._acquitted = asyncio.Event()
        self._held_back: deque[Delivery] = deque()
        self._held_back_tags: set[int] = set()

    async def serve(
        self, connection: AbstractConnection, finish: asyncio.Event, standing: asyncio.Event
    ) -> None:
        """Stand in line, and after each release at its end, until `finish`. Raises how it broke.

        `standing` is set when it has its place for the first time.
        """
        while not finish.is_set():
            self.active = False
            for event in (self._release, self._came, self._suspected):
                event.clear()
            self._acquitted.set()
            self._held_back.clear()
            self._held_back_tags.clear()
            subscription = self._subscription = await Subscription.open(
                connection, self.queue, self._accept, prefetch=self._prefetch
            )
            try:
                async with answered_within(self._patience):
                    await subscription.consume(self._prefetch)
                standing.set()
                ended = await first_of(
                    _breaking(subscription),
                    self._try_suspects(subscription.window),
                    self._release.wait(),
                    finish.wait(),
                )
                ended.result()
                await _leave(subscription)
            finally:
                self._subscription = None
                await subscription.end()

    @property
    def in_flight(self) -> int:
        """How many commands have come and are not acknowledged."""
        return len(self._subscription.window) if self._subscription is not None else 0

    def starves(self, waiting: int) -> bool:
        """As `Subscription.starves`; one that is not active has nothing to expect."""
        return (
            self.active and self._subscription is not None and self._subscription.starves(waiting)
        )

    def release(self) -> None:
        """Let the next in line become active, once what is in hand is done."""
        self._release.set()

    async def looked_at(self, seconds: float) -> None:
        """Return when its first command is no suspect, or is done with; or if none has come."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._came.wait()
        await self._acquitted.wait()

    def _accept(self, delivery: Delivery) -> None:
        if delivery.source.closed:
            return
        first, self.active = not self.active, True
        suspect = delivery.delivery_count >= self._suspect_from
        if suspect and not first:
            delivery = replace(delivery, delivery_count=self._suspect_from)
        if suspect or self._suspected.is_set():
            self._acquitted.clear()
            self._suspected.set()
            self._held_back.append(delivery)
            self._held_back_tags.add(delivery.tag)
        else:
            self._take(delivery)
        self._came.set()

    async def _try_suspects(self, window: AckWindow) -> None:
        """Hand on what is held back, in its order, suspects with nothing else in hand."""
        while True:
            await self._suspected.wait()
            while self._held_back:
                delivery = self._held_back.popleft()
                alone = delivery.delivery_count >= self._suspect_from
                if alone:
                    await window.only(self._held_back_tags)
                self._held_back_tags.discard(delivery.tag)
                self._take(delivery)
                if alone:
                    await window.only(self._held_back_tags)
            self._suspected.clear()
            self._acquitted.set()


async def _leave(subscription: Subscription) -> None:
    """Finish what has begun, and give the rest back for the next in line."""
    subscription.window.hold()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLEARING_SECONDS):
            await subscription.window.at_rest()
    await subscription.acknowledge_all()
    await subscription.channel.close()


async def _breaking(subscription: Subscription) -> None:
    raise AMQPError(await subscription.broken())
