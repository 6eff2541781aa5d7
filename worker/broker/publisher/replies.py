"""Replies: best effort, over a connection of their own, never in the way of an acknowledgement.

Whoever asks for a reply names where to. A name such as `amq.rabbitmq.reply-to.…` that another
broker made, or nobody, has RabbitMQ end the whole connection (541), and a queue that has lost its
quorum never confirms: nothing else may be on that connection, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import structlog

from worker.broker.connection import keep_connected
from worker.broker.errors import short_reason
from worker.broker.publisher.publisher import Publisher
from worker.broker.topology import Topology
from worker.core.backoff import RECONNECT
from worker.core.errors import Misconfigured
from worker.core.messages import Publication
from worker.core.tasks import cancel_all
from worker.telemetry.instruments import Instrument, Reading
from worker.telemetry.readiness import Component

log = structlog.get_logger(__name__)

LOST = Instrument(
    "worker.replies.lost",
    "counter",
    "{reply}",
    "Replies that were given up, by why: the reply code of the broker, `returned`, `nack`, "
    "`silence`, `timeout`, or `full` where too many were in flight.",
    ("reason",),
)

LAST_SECONDS = 1
"""For the last replies at a stop; a broker that is up confirms within milliseconds."""


class _ReplyConnection(Component):
    """On which readiness does not depend."""

    def up(self) -> None:
        self.reason, self.has_been_ready = None, True

    def down(self, reason: str) -> None:
        if reason != self.reason:
            log.warning("replies cannot be sent", reason=reason)
            self.reason = reason


class Replies:
    """Sends replies for as long as it runs, at most `most` at a time, each for at most `seconds`.

    The connection is opened with the first of them.
    """

    def __init__(self, topology: Topology, *, most: int, seconds: float) -> None:
        self._topology = topology
        self._name = f"{topology.namespace} replies"
        self._part = _ReplyConnection("replies")
        self._publisher = Publisher(
            topology,
            self._part,
            name=self._name,
            confirm_timeout_seconds=seconds,
            declares=False,
        )
        self._room = most
        self._seconds = seconds
        self._asked_for = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._lost: Counter[str] = Counter()

    async def run(self) -> None:
        """Keep a connection, from the first reply on."""
        await self._asked_for.wait()
        settings, serve = self._topology.settings, self._publisher.serve
        while True:
            try:
                await keep_connected(settings, self._name, self._part, serve)
            except Misconfigured as fault:  # which stops nothing but replies
                log.warning("replies cannot be sent", reason=str(fault))
                await asyncio.sleep(RECONNECT.cap_seconds)

    def send(self, replies: Sequence[Publication]) -> None:
        """Have them sent; returns at once."""
        self._asked_for.set()
        sent, dropped = replies[: self._room], replies[self._room :]
        if dropped:
            self._lose("full", len(dropped))
        if sent:
            self._room -= len(sent)
            task = asyncio.create_task(self._send(sent))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def deliver(self, reply: Publication) -> None:
        """Send one; return when the broker has it, or when it is given up."""
        self._asked_for.set()
        if not self._room:
            self._lose("full", 1)
            return
        self._room -= 1
        await self._send([reply])

    async def finish(self) -> None:
        """Wait a moment for those in flight, and give up the rest."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=LAST_SECONDS)
        await cancel_all([*self._sending])

    def read(self) -> Iterator[tuple[Instrument, Iterable[Reading]]]:
        """The instrument, for `/metrics`."""
        yield LOST, [({"reason": reason}, number) for reason, number in self._lost.items()]

    async def _send(self, replies: Sequence[Publication]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                faults = await self._publisher.publish(replies)
        except TimeoutError:
            self._lose("timeout", len(replies))
        else:
            reasons = [
                reason
                for place, fault in faults.items()
                if (reason := short_reason(fault)) != "returned" or not _is_direct(replies[place])
            ]
            for reason, number in Counter(reasons).items():
                self._lose(reason, number)
        finally:
            self._room += len(replies)

    def _lose(self, reason: str, number: int) -> None:
        self._lost[reason] += number
        # That an asker has gone is its own affair.
        tell = log.info if reason == "returned" else log.warning
        tell("replies were lost", reason=reason, number=number)


def _is_direct(reply: Publication) -> bool:
    # RabbitMQ hands it to the asker's channel past all queues, and returns it nevertheless.
    return reply.routing_key.startswith("amq.rabbitmq.reply-to.")
