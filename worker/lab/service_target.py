"""The path `service`: the worker itself, in a schema and a namespace of the run."""

from __future__ import annotations

import asyncio
from typing import Any

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.broker.client.client import remove
from worker.broker.connection import connect
from worker.broker.topology import Topology
from worker.core.errors import Unreachable
from worker.core.models import Base
from worker.core.tasks import first_of
from worker.database.engine import make_engine
from worker.database.errors import explain
from worker.database.migrations import alembic_config
from worker.lab.link import LabLink
from worker.lab.pieces import LabRow, registry_of
from worker.lab.recorder import WorkRecorder
from worker.lab.target import LabOrder
from worker.lab.transaction import LabTransaction
from worker.service.service import Service
from worker.settings.settings import Settings

READY_SECONDS = 20
LOOK_SECONDS = 0.02


class ServiceTarget:
    """A worker that consumes what the generator publishes, and who receives the events."""

    sees_ends = False

    def __init__(self, order: LabOrder) -> None:
        self.engine = make_engine(order.database_settings, name=order.application_name)
        _work_in(self.engine, order.namespace)
        self._settings = settings_of(order)
        self._topology = Topology(order.namespace, self._settings.broker)
        transaction = LabTransaction(order.scenario, order.namespace)
        self._service = Service(
            self._settings, engine=self.engine, registry=registry_of(transaction), processes=0
        )
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make tables and queues anew, and wait until the worker consumes."""
        try:
            async with self.engine.begin() as connection:
                await connection.run_sync(_make_tables, self._settings)
        except (SQLAlchemyError, OSError) as error:
            raise explain(error, self.engine) from error
        await self.engine.dispose()
        await self._remove_queues()
        self._running = asyncio.create_task(self._service.run())
        try:
            async with asyncio.timeout(READY_SECONDS):
                health = self._service.health
                while not (health.ready or self._running.done()):  # noqa: ASYNC110 - once, at first
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError as error:
            raise Unreachable(f"the worker was not ready within {READY_SECONDS} s") from error
        if self._running.done():
            self._running.result()

    async def run(self, link: LabLink, recorder: WorkRecorder) -> None:
        """Let the worker work until the generator ends, then have it finish what is in hand.

        The generator tells of each event with a byte.
        """
        assert self._running is not None
        await first_of(_count(link, recorder), asyncio.shield(self._running))
        self._service.stop()
        await self._running

    async def stop(self) -> None:
        """Stop the worker, and remove its queues with what was left in them."""
        if self._running is not None:
            self._service.stop()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._remove_queues()

    async def _remove_queues(self) -> None:
        name = f"{self._topology.namespace} lab"
        async with connect(self._settings.broker, name) as connection:
            await remove(connection, self._topology)


def settings_of(order: LabOrder) -> Settings:
    """The worker's own settings, with what the scenario sets and what the run has for itself."""
    scenario = order.scenario
    members: dict[str, Any] = {
        **order.base,
        "broker": {**order.base.get("broker", {}), "url": order.broker_url},
        "database": order.database_settings,
        "health": {"port": 0},
        "namespace": order.namespace,
        "lanes": scenario.worker_lanes,
        "partitions": 1,
        "group_size": scenario.work.group_size,
        "shutdown_seconds": 2,
    }
    return Settings.model_validate(members)


def _work_in(engine: AsyncEngine, schema: str) -> None:
    """Have every connection find the tables of this schema, and no others."""

    def connected(connection: Any, _: object) -> None:
        connection.run_async(lambda driver: driver.execute(f'SET search_path TO "{schema}"'))

    event.listen(engine.sync_engine.pool, "connect", connected)


def _make_tables(connection: Connection, settings: Settings) -> None:
    """The ledger and the pieces, empty; the schema is at head, as far as the worker asks."""
    for metadata in (Base.metadata, LabRow.metadata):
        metadata.drop_all(connection)
        metadata.create_all(connection)
    connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    script = ScriptDirectory.from_config(alembic_config(*settings.migrations))
    MigrationContext.configure(connection).stamp(script, "heads")


async def _count(link: LabLink, recorder: WorkRecorder) -> None:
    async for events in link.pieces():
        recorder.completed_ever += len(events)
