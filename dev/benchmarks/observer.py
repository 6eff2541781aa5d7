"""Receives the events of one arena, with the time of each; reads them only afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pamqp import commands

from dev.benchmarks.amqp import Link, open_link
from dev.benchmarks.arena import Arena


class Observer:
    """Events in the order received: `times` (seconds, `loop.time()`) and `bodies` run in step."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.bodies: list[bytes] = []
        self._wanted: tuple[int, asyncio.Future[None]] | None = None

    def receive(self, now: float, body: bytes) -> None:
        """Keep one event."""
        self.times.append(now)
        self.bodies.append(body)
        if self._wanted is not None and len(self.times) >= self._wanted[0]:
            _, done = self._wanted
            self._wanted = None
            done.set_result(None)

    async def reached(self, count: int, *, patience: float = 30) -> None:
        """Wait for so many events. Raises `TimeoutError` if none comes for `patience` seconds."""
        while len(self.times) < count:
            before = len(self.times)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wanted = (count, done)
            await asyncio.wait({done}, timeout=patience)
            self._wanted = None
            if not done.done() and len(self.times) == before:
                raise TimeoutError(
                    f"{before:,} of {count:,} events came, then none for {patience:g} s"
                )


@asynccontextmanager
async def observe(arena: Arena) -> AsyncIterator[Observer]:
    """Collect everything that is published to the arena's events exchange from now on.

    The queue is exclusive, in memory, and consumed without acknowledgements.
    """
    observer = Observer()
    async with open_link(arena.broker_url) as link:
        queue = await _bound_queue(link, arena.topology.events)
        link.receive = observer.receive
        consume = commands.Basic.Consume(0, queue, "", no_ack=True)
        await link.call(consume, commands.Basic.ConsumeOk)
        yield observer


async def _bound_queue(link: Link, exchange: str) -> str:
    declare = commands.Queue.Declare(0, "", exclusive=True)
    declared = await link.call(declare, commands.Queue.DeclareOk)
    bind = commands.Queue.Bind(0, declared.queue, exchange, "#")
    await link.call(bind, commands.Queue.BindOk)
    return str(declared.queue)
