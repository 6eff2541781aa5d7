"""The pipeline's steps, one after the other, on a stream of frames as the broker would send it.

CPU time of this thread (`time.thread_time`), so waiting for the database does not count, and other
processes disturb little. What is left out is what needs a broker: sockets, confirms, the loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pamqp.frame
from aiormq.channel import Channel
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from sqlalchemy.ext.asyncio import AsyncEngine

from dev.benchmarks.arena import Arena
from dev.benchmarks.commands import Workload
from worker.broker.consumer.ack_window import AckWindow
from worker.broker.consumer.subscription import read_delivery
from worker.broker.protocol.frame_reader import Intake
from worker.broker.protocol.frame_writer import frames
from worker.broker.publisher.publications import Publications
from worker.broker.topology import Topology
from worker.codec.codec import Codec
from worker.core.backoff import Backoff
from worker.core.messages import Delivery, Done, Job, Outcome
from worker.core.registry import load_registry
from worker.database.engine import autocommit, make_engine, make_sessions
from worker.processing.processor import Processor
from worker.processing.transaction import Transaction
from worker.processing.unit_of_work import UnitOfWork
from worker.settings.settings import DatabaseSettings, Settings

STAGES = (
    "read frames",
    "read properties",
    "decode and validate",
    "begin, commit, and the pool",
    "look into the ledger",
    "look up rows",
    "handlers",
    "write rows, and the events that waited for ids",
    "write the ledger",
    "build messages",
    "build frames",
)
"""In the order of a command's way."""

_INSIDE = (
    (Transaction, "_look_up", "look into the ledger"),
    (Transaction, "_prepare", "look up rows"),
    (Transaction, "_carry_out", "handlers"),
    (UnitOfWork, "flush", "write rows, and the events that waited for ids"),
    (Transaction, "_remember", "write the ledger"),
)


class Clock:
    """CPU seconds by stage; those of a stage within another count for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stages = [""]
        self._since = time.thread_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what is used within."""
        self._switch()
        self._stages.append(name)
        try:
            yield
        finally:
            self._switch()
            self._stages.pop()

    def _switch(self) -> None:
        now = time.thread_time()
        self.seconds[self._stages[-1]] += now - self._since
        self._since = now

    def timed(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """The step, as a stage."""

        async def run(*arguments: Any) -> Any:
            with self.stage(name):
                return await step(*arguments)

        return run


def stream(bodies: Sequence[bytes]) -> bytes:
    """The frames in which the broker delivers the commands to the consumer `bench`."""
    properties = Basic.Properties(delivery_mode=2, content_type="application/json", headers={})
    parts = []
    for tag, body in enumerate(bodies, start=1):
        header = ContentHeader(body_size=len(body), properties=properties)
        deliver = Basic.Deliver("bench", tag, False, "worker.commands", "any")
        parts += [pamqp.frame.marshal(part, 1) for part in (deliver, header, ContentBody(body))]
    return b"".join(parts)


async def read(clock: Clock, raw: bytes) -> list[tuple[int, bool, bytes, bytes, bytes]]:
    """Tag, redelivered, routing key, header and body of each delivery."""
    reader = asyncio.StreamReader(limit=2 * len(raw))
    intake = Intake(reader)
    found: list[tuple[int, bool, bytes, bytes, bytes]] = []
    intake.sinks[1, b"bench"] = lambda *content: found.append(content)
    reader.feed_data(raw)
    reader.feed_eof()
    with clock.stage("read frames"):
        try:
            await intake.readexactly(1)
        except asyncio.IncompleteReadError:
            return found
    raise AssertionError("there was more than deliveries")


class Bench:
    """The worker's parts, put together as `Service` does it."""

    def __init__(self, arena: Arena, clock: Clock) -> None:
        database = DatabaseSettings.model_validate({"url": arena.database_url})
        settings = Settings.model_validate({"database": database, "namespace": arena.namespace})
        self.engine: AsyncEngine = make_engine(database)
        self._clock = clock
        self._topology = Topology(settings.namespace, settings.broker)
        self._window = AckWindow(cast(Channel, None), 1)  # nothing is acknowledged
        registry = load_registry(settings.entities)
        self._codec = Codec(registry, own_queues=frozenset(self._topology.queues))
        self._processor = Processor(
            make_sessions(self.engine),
            registry,
            self._codec,
            max_attempts=settings.max_attempts,
            backoff=Backoff(settings.retry_base_seconds, settings.retry_max_seconds),
            max_deliveries=settings.broker.delivery_limit,
            budget_seconds=60,
            is_up=_is_up,
            autocommit=autocommit(self.engine),
        )

    async def carry_out(self, bodies: Sequence[bytes]) -> None:
        """One group, from frames to frames."""
        clock = self._clock
        contents = await read(clock, stream(bodies))
        with clock.stage("read properties"):
            deliveries: list[Delivery] = [
                read_delivery(tag, again, header, body, self._window, routing_key=routing_key)
                for tag, again, routing_key, header, body in contents
            ]
        with clock.stage("decode and validate"):
            jobs = [Job(self._codec.decode(each)) for each in deliveries]
        with clock.stage("begin, commit, and the pool"):
            outcomes = await self._processor.process(jobs)
        settled = [(job, done(each)) for job, each in zip(jobs, outcomes, strict=True)]
        with clock.stage("build messages"):
            answers = Publications(self._topology)
            messages = [answers.event(job, outcome) for job, outcome in settled]
        ids = [f"0190b8c2-7f3a-7d2e-9c41-{number:012x}" for number in range(len(messages))]
        with clock.stage("build frames"):
            frames(1, 131_064, messages, ids)


def done(outcome: Outcome) -> Done:
    """The outcome, if it is a success; else the figures would be about something else."""
    assert isinstance(outcome, Done), outcome
    return outcome


@contextmanager
def timed_transactions(clock: Clock) -> Iterator[None]:
    """Time the steps of every transaction."""
    own = [(cls, name, getattr(cls, name), stage) for cls, name, stage in _INSIDE]
    for cls, name, step, stage in own:
        setattr(cls, name, clock.timed(stage, step))
    try:
        yield
    finally:
        for cls, name, step, _ in own:
            setattr(cls, name, step)


async def _is_up(_: BaseException) -> bool:
    return True


async def measure(
    arena: Arena, workload: Workload, *, commands: int, group: int, seed: int
) -> dict[str, float]:
    """CPU microseconds a command in each stage; the first fifth is a warm-up."""
    await arena.add_users(workload.rows_before(commands))
    bodies = workload.bodies(commands, seed=seed)
    clock = Clock()
    bench = Bench(arena, clock)
    counted = 0
    try:
        with timed_transactions(clock):
            for start in range(0, commands, group):
                if start <= commands // 5 < start + group:
                    clock.seconds.clear()
                    counted = 0
                await bench.carry_out(bodies[start : start + group])
                counted += len(bodies[start : start + group])
    finally:
        await bench.engine.dispose()
    return {stage: clock.seconds[stage] / counted * 1e6 for stage in STAGES}
