"""One run: a queue full of commands, a contender, and a clock on the events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aio_pika

from dev.benchmarks.amqp import open_link
from dev.benchmarks.arena import Arena, Place, fresh_arena
from dev.benchmarks.contender import Contender, Queue
from dev.benchmarks.figures import bounds, rate
from dev.benchmarks.observer import observe
from dev.benchmarks.process import fill_by_itself, running
from dev.benchmarks.tally import Tally, tally
from dev.benchmarks.usage import Meter, Usage, peak_bytes


@dataclass(frozen=True)
class Run:
    """What one drain has shown."""

    contender: str
    commands: int
    rate: float
    """Commands per second, counted from events."""
    usage: Usage
    """CPU microseconds per command, over the same part of the run."""
    peak_bytes: int | None
    """The contender's resident memory at its highest."""
    tally: Tally


async def drain(contender: Contender, place: Place, *, commands: int, seed: int) -> Run:
    """Fill a fresh queue, start the contender, wait for all events, stop it, and check.

    Raises `ContenderFailed` if it ends or falls silent before all events are there.
    """
    workload = contender.workload
    bodies = workload.bodies(commands, seed=seed)
    first, last = bounds(commands)
    async with fresh_arena(place, leftovers=contender.leftovers) as arena:
        if rows := workload.rows_before(commands):
            await arena.add_users(rows)
        await fill(contender, arena, bodies)
        meter = Meter(arena.broker_url, arena.database_url)
        async with observe(arena) as observer, running(contender, arena) as process:
            await process.while_it_runs(observer.reached(first))
            before = meter.read(process.session)
            counted_from = len(observer.times)
            await process.while_it_runs(observer.reached(last))
            used = meter.read(process.session).since(before)
            counted = len(observer.times) - counted_from
            await process.while_it_runs(observer.reached(commands))
            peak = peak_bytes(process.session)
            await process.stop()
            # What came meanwhile is a repetition, and is to be seen as one.
            verdict = tally(
                bodies,
                observer.bodies,
                types=workload.events(commands),
                rows=await arena.users(),
                rows_expected=workload.rows_after(commands) if contender.writes else 0,
                left=await _waiting(arena, contender.queue_of(arena)),
            )
            return Run(
                contender=contender.name,
                commands=commands,
                rate=rate(observer.times[:commands]),
                usage=used.per(counted),
                peak_bytes=peak,
                tally=verdict,
            )


async def fill(contender: Contender, arena: Arena, bodies: list[bytes]) -> None:
    """Make the contender's queue, and put the commands into it: persistent, confirmed."""
    if contender.queue is Queue.OWN:
        await fill_by_itself(contender, arena, bodies)
        return
    if contender.queue in {Queue.CLASSIC, Queue.QUORUM}:
        kind: dict[str, Any] = {"x-queue-type": "quorum"} if contender.queue is Queue.QUORUM else {}
        async with await aio_pika.connect(arena.broker_url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(arena.queue, durable=True, arguments=kind)
    async with open_link(arena.broker_url) as link:
        await link.publish("", contender.queue_of(arena), bodies)


async def _waiting(arena: Arena, queue: str) -> int:
    async with await aio_pika.connect(arena.broker_url) as connection:
        channel = await connection.channel()
        declared = await channel.declare_queue(queue, passive=True)
        return declared.declaration_result.message_count or 0
