"""The composition root: builds the parts from the settings, starts them, stops them.

consumer ─▶ codec ─▶ lanes ─▶ processor ─▶ publisher ─▶ consumer (acknowledge)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.broker.connection import keep_connected
from worker.broker.consumer.consumer import Consumer
from worker.broker.consumer.subscription import SUSPECT_DELIVERIES
from worker.broker.publisher.publisher import Publisher
from worker.broker.publisher.settlement import Settlement
from worker.broker.topology import Topology
from worker.broker.topology_watch import TopologyWatch
from worker.codec.authorization import Authorization
from worker.codec.codec import Codec
from worker.codec.routing_key import RoutingWatch
from worker.core.backoff import Backoff
from worker.core.errors import WorkerError, words
from worker.core.messages import Delivery
from worker.core.registry import Registry, load_registry
from worker.core.tasks import Ended, cancel_all, first_of, result_of
from worker.database.capacity import warn_if_crowded
from worker.database.engine import autocommit, make_engine, make_sessions
from worker.database.health import DatabaseWatch
from worker.database.ledger_retention import EVERY_SECONDS, LedgerMeter, keep_pruned
from worker.database.pool.metrics import reader_of
from worker.database.pool.pool import pool_of
from worker.processing.lanes import Lanes
from worker.processing.processor import Processor
from worker.service.queries import make_queries
from worker.settings.settings import Settings
from worker.telemetry import runtime
from worker.telemetry.command_log import CommandLog, keep_summing_up
from worker.telemetry.commands import CommandMeter
from worker.telemetry.health import Health

log = structlog.get_logger(__name__)


HOLD_SECONDS = 30
"""How long commands are held while the database is away or answers cannot leave, before they go
back to the queue: once, and not at each consumer timeout of the broker, which counts returns."""


class Service:
    """One worker process.

    `run` consumes until `stop`, which promises: no further command is taken, those in hand are
    finished and answered within `shutdown_seconds`, all others go back to the queue unharmed.

    `processes` is how many like this one there are on this machine; the pools of all of them are
    held against what the server has room for. 0 leaves that to another of them. An `engine` that is
    given is used, and disposed of in the end; a `registry` stands in for the entities' modules.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        processes: int = 1,
        engine: AsyncEngine | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._settings = settings
        self._processes = processes
        self.health = Health(settings.health.host, settings.health.port)
        self._topology = Topology.of(settings)
        self._engine = engine or make_engine(settings.database, name=f"{settings.namespace} worker")
        self._sessions = make_sessions(self._engine)
        self._watch = DatabaseWatch(
            self._engine, self.health.part("database"), migrations=settings.migrations
        )
        registry = registry or load_registry(settings.entities)
        self._query_types = frozenset(registry.query_types if settings.queries else ())
        self._authorization = Authorization(
            settings.authorization, [*registry.types, *registry.query_types]
        )
        self._codec = Codec(
            registry,
            max_body_bytes=settings.max_body_bytes,
            own_queues=frozenset(self._topology.queues),
            takes_queries=settings.queries > 0,
        )
        self._meter = CommandMeter(
            CommandLog(tells_done=settings.log_level == "debug"), suspect_from=SUSPECT_DELIVERIES
        )
        self._publisher = Publisher(
            self._topology,
            self.health.part("events"),
            confirm_timeout_seconds=settings.broker.confirm_timeout_seconds,
        )
        self._settlement = Settlement(
            self._topology,
            self._publisher,
            self.health.part("answers"),
            max_attempts=settings.max_attempts,
            most=settings.prefetch,
            reply_seconds=settings.broker.confirm_timeout_seconds,
        )
        self._lanes = Lanes(
            self._meter.around_processing(self._processor(registry).process),
            self._meter.around_publishing(self._settlement.answer),
            self._watch.is_well,
            lanes=settings.lanes,
            group_size=settings.group_size,
            retries_at_once=max(1, min(settings.lanes, settings.database.room - settings.lanes)),
        )
        self._queries, self._query_engine = make_queries(
            settings, registry, self._codec, self._settlement.reply
        )
        self._consumer = Consumer(
            self._topology,
            self._take,
            self.health.part("commands"),
            prefetch=settings.prefetch,
            may_consume=self._may_consume,
            must_pause=self._must_pause,
        )
        self._topology_watch = TopologyWatch(self._topology, self.health.part("topology"))
        self._routing = RoutingWatch()
        self._has_partitions = bool(self._topology.partitions)
        self._ledger_meter = LedgerMeter()
        self._show_metrics()
        self._stop = asyncio.Event()
        self._beside: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    def _processor(self, registry: Registry) -> Processor:
        settings = self._settings
        return Processor(
            self._sessions,
            registry,
            self._codec,
            max_attempts=settings.max_attempts,
            backoff=Backoff(settings.retry_base_seconds, settings.retry_max_seconds),
            # Before the broker's own limit, so that the end is told by an event.
            max_deliveries=settings.broker.delivery_limit // 2,
            budget_seconds=settings.group_budget_seconds,
            handler_timeout_seconds=settings.handler_timeout_seconds,
            contention_seconds=settings.contention_seconds,
            is_up=self._watch.is_up,
            frozen_seconds=settings.database.idle_in_transaction_timeout_seconds,
            autocommit=autocommit(self._engine),
        )

    def _show_metrics(self) -> None:
        for read in (
            reader_of(lambda: pool_of(self._engine)),
            runtime.read,
            self._meter.read,
            self._lanes.read,
            self._consumer.read,
            self._consumer.partitions.read,
            self._publisher.read,
            self._settlement.read,
            self._ledger_meter.read,
            self._topology_watch.read,
            self._routing.read,
        ):
            self.health.metrics.add(read)

    def stop(self) -> None:
        """Begin to stop; `run` returns when that is done."""
        self._stop.set()

    def beside(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have this work done as long as the service runs; it ends no earlier."""
        self._beside[name] = work

    async def run(self) -> None:
        """Consume until stopped. Raises `Misconfigured` where waiting cannot help.

        What ends one of its parts before, whatever it is, is raised, and is why it is not ready.
        """
        try:
            async with self.health:
                await self._run()
        finally:
            self._watch.close()
            with suppress(TimeoutError):  # a frozen server does not take leave
                async with asyncio.timeout(3):
                    await self._engine.dispose()
                    await self._query_engine.dispose()

    async def _run(self) -> None:
        broker, name = self._settings.broker, self._settings.namespace
        parts = {
            "lanes": self._lanes.run(),
            "events": keep_connected(
                broker, f"{name} events", self.health.part("events"), self._publisher.serve
            ),
            "commands": keep_connected(
                broker,
                f"{name} commands",
                self.health.part("commands"),
                self._topology_watch.around(self._consumer.serve, self._consumer.starving),
            ),
            "queries": self._queries.run(),
            "answers": self._settlement.run(),
            "database": self._watch_the_database(),
            "retention": self._keep_pruned(),
            "summary": keep_summing_up(self._meter.totals),
            **{name: work() for name, work in self._beside.items()},
        }
        tasks = {name: asyncio.create_task(part, name=name) for name, part in parts.items()}
        stop = asyncio.create_task(self._stop.wait())
        try:
            await self._until(stop, tasks.values())
            log.info("stopping", seconds=self._settings.shutdown_seconds)
            await self._finish_what_is_in_hand(tasks["lanes"], tasks["queries"])
        finally:
            await cancel_all([*tasks.values(), stop])
        log.info("stopped")

    async def _until(self, stop: asyncio.Task[bool], tasks: Iterable[asyncio.Task[None]]) -> None:
        """Wait for the stop. None of the tasks ends before, for whatever reason, and is missed."""
        pending: set[asyncio.Task[Any]] = {stop, *tasks}
        while not stop.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                error = _reason_for_the_end_of(task)
                if not isinstance(error, WorkerError):
                    self.health.part(task.get_name()).down(f"it has ended: {words(error)}")
                raise error

    async def _watch_the_database(self) -> None:
        await self._watch.start()
        if self._processes:
            await warn_if_crowded(self._engine, processes=self._processes)
        await self._watch.keep_looking()

    async def _finish_what_is_in_hand(self, *works: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(self._settings.shutdown_seconds):
                self._lanes.stop()
                self._queries.stop()
                await self._consumer.stop_taking()
                await asyncio.wait(works)
                for work in works:
                    result_of(work)
                await self._consumer.finish()
                await self._settlement.finish()
        except TimeoutError:
            log.warning(
                "not everything in hand was finished in time; the broker delivers it again",
                seconds=self._settings.shutdown_seconds,
            )

    async def _keep_pruned(self) -> None:
        await self._watch.checked()
        retention = timedelta(days=self._settings.ledger_retention_days)
        # What is kept for a short time only is looked at more often.
        every = min(EVERY_SECONDS, retention.total_seconds() / 10)
        await keep_pruned(self._sessions, retention, self._ledger_meter, every_seconds=every)

    def _take(self, delivery: Delivery) -> None:
        self._meter.took(delivery)
        item = self._authorization.judge(self._codec.decode(delivery))
        if self._has_partitions:
            self._routing.look(item.envelope)
        envelope = item.envelope
        if envelope.type in self._query_types and envelope.reply_to is not None:
            self._queries.submit(item)
            return
        self._lanes.submit(item)

    async def _may_consume(self) -> None:
        await self._watch.checked()
        await self._publisher.outage.over()

    async def _must_pause(self) -> str:
        """Return why nothing may be held any longer."""
        reasons: dict[asyncio.Future[None], str] = {
            asyncio.ensure_future(self._watch.away_for(HOLD_SECONDS)): "the database is away",
            asyncio.ensure_future(
                self._publisher.outage.lasting(HOLD_SECONDS)
            ): "answers cannot leave",
        }
        return reasons[await first_of(*reasons)]


def _reason_for_the_end_of(task: asyncio.Task[None]) -> BaseException:
    try:
        result_of(task)
    except BaseException as error:
        return error
    return Ended(f"{task.get_name()} returned")


async def run_until_signalled(settings: Settings) -> None:
    """Run a service; the first SIGTERM or SIGINT stops it in order, the second at once."""
    service = Service(settings)
    running = asyncio.current_task()
    assert running is not None
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if service._stop.is_set():
            log.warning("stopping at once")
            running.cancel()
        service.stop()

    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, on_signal)
    await service.run()
