"""The run: a worker, commands at a rate, and a look at all that could grow."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aio_pika
import asyncpg
from aio_pika.abc import AbstractChannel
from pamqp import commands as amqp

from dev.benchmarks.amqp import Link, open_link
from dev.benchmarks.arena import Place
from dev.databases import dsn, fresh_database
from dev.footprint import footprint, health_address
from dev.soak.traffic import commands, some
from dev.worker_processes import WorkerProcess
from worker.broker.client.client import remove
from worker.broker.topology import Topology
from worker.settings.settings import Settings

AT_ONCE = 500
MOST_WAITING = 20_000
"""Commands that are on their way, should the worker not keep up with the rate."""
PATIENCE_SECONDS = 60
"""Without a single event the run has failed."""


@dataclass(frozen=True)
class Plan:
    """How much, how long things are kept, and how often to look."""

    commands: int
    retention_seconds: float
    stream_bytes: int
    sample_seconds: float
    rate: float
    """Commands a second that are aimed at: what a table holds follows the rate, and as fast as the
    machine goes, which drifts, it would seem to grow."""
    vacuum: bool = False
    """Vacuum at each look, in a run that is shorter than autovacuum's minute."""
    seed: int = 1


@dataclass
class Soaked:
    """What was seen."""

    seconds: float = 0
    events: int = 0
    samples: list[dict[str, float]] = field(default_factory=list)
    exit_code: int | None = None


async def soak(place: Place, plan: Plan, log: Path) -> Soaked:
    """Run the plan. Raises `TimeoutError` if the worker falls silent."""
    async with _arena(place, plan) as (settings, environment):
        worker = WorkerProcess(environment, log)
        try:
            await worker.start()
            return await _soak(settings, plan, worker, log)
        finally:
            await worker.end()


@asynccontextmanager
async def _arena(place: Place, plan: Plan) -> AsyncIterator[tuple[Settings, dict[str, str]]]:
    """A fresh database and fresh queues, gone in the end; the worker's settings and environment."""
    name = f"{place.template}_{uuid.uuid4().hex[:8]}"
    days = plan.retention_seconds / 86_400
    async with fresh_database(place.server_url, name, template=place.template) as database:
        environment = {
            "WORKER_BROKER__URL": place.broker_url,
            "WORKER_BROKER__EVENTS_MAX_BYTES": str(plan.stream_bytes),
            "WORKER_BROKER__DEAD_LETTERS_RETENTION_DAYS": f"{days:.9f}",
            "WORKER_DATABASE__URL": database,
            "WORKER_NAMESPACE": name,
            "WORKER_HEALTH__PORT": "0",
            "WORKER_LEDGER_RETENTION_DAYS": f"{days:.9f}",
            "WORKER_LOG_FORMAT": "json",
        }
        settings = Settings.model_validate(
            {"namespace": name, "broker": {"url": place.broker_url}, "database": {"url": database}}
        )
        try:
            yield settings, environment
        finally:
            async with await aio_pika.connect(place.broker_url) as connection:
                await remove(connection, Topology(name, settings.broker))


async def _soak(settings: Settings, plan: Plan, worker: WorkerProcess, log: Path) -> Soaked:
    found, started = Soaked(), time.monotonic()
    url = settings.broker.url.get_secret_value()
    async with open_link(url) as events, open_link(url) as link:
        await _count_events(events, f"{settings.namespace}.events", found)
        watch = _Watch(settings, plan, worker, log)
        await watch.look_once(found, started)
        looking = asyncio.create_task(watch.keep(found, started))
        try:
            await _publish(link, f"{settings.namespace}.commands", plan, found)
            found.seconds = time.monotonic() - started
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
        await watch.look_once(found, started)
        found.exit_code = await worker.stop()
    return found


async def _count_events(link: Link, exchange: str, found: Soaked) -> None:
    declared = await link.call(amqp.Queue.Declare(0, "", exclusive=True), amqp.Queue.DeclareOk)
    await link.call(amqp.Queue.Bind(0, declared.queue, exchange, "#"), amqp.Queue.BindOk)

    def receive(_now: float, _body: bytes) -> None:
        found.events += 1

    link.receive = receive
    await link.call(amqp.Basic.Consume(0, declared.queue, "", no_ack=True), amqp.Basic.ConsumeOk)


async def _publish(link: Link, exchange: str, plan: Plan, found: Soaked) -> None:
    """Send all at the rate of the plan, with so many on their way at most; wait for the events."""
    source: Iterator[bytes] = commands(seed=plan.seed)
    began = time.monotonic()
    while link.published < plan.commands:
        await asyncio.sleep(began + link.published / plan.rate - time.monotonic())
        bodies = some(source, min(AT_ONCE, plan.commands - link.published))
        link.send(exchange, "any", bodies)
        await link.confirmed()
        await _until_events(found, link.published - MOST_WAITING)
    await _until_events(found, plan.commands)


async def _until_events(found: Soaked, number: int) -> None:
    last, since = found.events, time.monotonic()
    while found.events < number:
        await asyncio.sleep(0.01)
        if found.events != last:
            last, since = found.events, time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            raise TimeoutError(f"{last:,} events came, then none for {PATIENCE_SECONDS} s")


@dataclass
class _Watch:
    """Looks again and again at what a worker and its servers hold."""

    settings: Settings
    plan: Plan
    worker: WorkerProcess
    log: Path

    async def keep(self, found: Soaked, started: float) -> None:
        """Append a sample to what was found, for ever."""
        while True:
            await self.look_once(found, started)
            await asyncio.sleep(self.plan.sample_seconds)

    async def look_once(self, found: Soaked, started: float) -> None:
        """Append one."""
        url = self.settings.database.url.get_secret_value()
        database = await asyncpg.connect(dsn(url))
        try:
            async with (
                await aio_pika.connect(self.settings.broker.url.get_secret_value()) as broker,
                broker.channel() as channel,
            ):
                sample = {"seconds": round(time.monotonic() - started, 2)}
                sample["answered"] = found.events
                found.samples.append(sample | await self._sample(database, channel))
        finally:
            await database.close()

    async def _sample(
        self, database: asyncpg.Connection, channel: AbstractChannel
    ) -> dict[str, float]:
        address = health_address(self.log)
        sample = asdict(await footprint(self.worker.process.pid, address))
        if self.plan.vacuum:
            await database.execute("VACUUM command_ledger")
            await database.execute("VACUUM users")
        row = await database.fetchrow(_SIZES)
        sample |= {name: float(value) for name, value in row.items()}
        topology = Topology(self.settings.namespace, self.settings.broker)
        for name, queue in (
            ("commands_messages", topology.commands),
            ("events_messages", topology.events),
            ("dead_letters_messages", topology.dead_letters),
        ):
            declared = await channel.declare_queue(queue, passive=True)
            sample[name] = declared.declaration_result.message_count or 0
        return sample


_SIZES = """
SELECT pg_total_relation_size('users') AS users_bytes,
  pg_total_relation_size('orders') AS orders_bytes,
  pg_total_relation_size('command_ledger') AS command_ledger_bytes,
  (SELECT count(*) FROM command_ledger) AS ledger_rows
"""
