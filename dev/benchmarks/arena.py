"""What one run has for itself: a fresh database and fresh queues, gone in the end."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aio_pika
import asyncpg

from dev.databases import dsn, execute, fresh_database, migrate
from worker.broker.client.client import remove
from worker.broker.topology import Topology
from worker.settings.settings import BrokerSettings


class NoServers(Exception):
    """The environment does not say where the servers are."""


@dataclass(frozen=True)
class Place:
    """The two servers, and the database that every fresh one is a copy of."""

    broker_url: str
    server_url: str
    template: str


@dataclass(frozen=True)
class Arena:
    """Addresses and names for one run."""

    broker_url: str
    database_url: str
    namespace: str

    @property
    def topology(self) -> Topology:
        """The worker's own queues; the events exchange, with its stream, is everybody's."""
        return Topology(self.namespace, BrokerSettings())

    @property
    def queue(self) -> str:
        """Name of the queue that a peer takes its commands from."""
        return f"{self.namespace}.queue"

    def variables(self) -> dict[str, str]:
        """What a contender's environment says of the arena."""
        return {
            "WORKER_BROKER__URL": self.broker_url,
            "WORKER_DATABASE__URL": self.database_url,
            "WORKER_NAMESPACE": self.namespace,
            "WORKER_HEALTH__PORT": "0",
            "BENCH_BROKER_URL": self.broker_url,
            "BENCH_DATABASE_URL": self.database_url,
            "BENCH_QUEUE": self.queue,
            "BENCH_EVENTS": self.topology.events,
        }

    async def add_users(self, count: int) -> None:
        """Put users with the ids 1 to `count` into the table, and let the planner know of them."""
        await execute(
            self.database_url,
            "INSERT INTO users (username, email) "
            "SELECT 'user-' || n, 'user-' || n || '@example.com' "
            f"FROM generate_series(1, {count}) AS n",
        )
        await execute(self.database_url, "VACUUM ANALYZE users")

    async def users(self) -> int:
        """How many users the table holds."""
        connection = await asyncpg.connect(dsn(self.database_url))
        try:
            return int(await connection.fetchval("SELECT count(*) FROM users"))
        finally:
            await connection.close()


@asynccontextmanager
async def servers() -> AsyncIterator[Place]:
    """The servers of `WORKER_BROKER__URL` and `WORKER_DATABASE__URL`, with a migrated template."""
    try:
        broker, server = os.environ["WORKER_BROKER__URL"], os.environ["WORKER_DATABASE__URL"]
    except KeyError as error:
        raise NoServers(
            f"{error.args[0]} is not set: run `make bench`, which starts the servers and sets it"
        ) from None
    name = f"bench_{uuid.uuid4().hex[:8]}"
    async with fresh_database(server, name) as url:
        await migrate(url)
        yield Place(broker, server, name)


@asynccontextmanager
async def fresh_arena(place: Place, *, leftovers: Iterable[str] = ()) -> AsyncIterator[Arena]:
    """A copy of the template, and the worker's exchanges and queues under a name of their own.

    In the end all of it is removed, with the queues and exchanges of the arena whose names end as
    `leftovers` say.
    """
    name = f"{place.template}_{uuid.uuid4().hex[:8]}"
    async with (
        fresh_database(place.server_url, name, template=place.template) as database,
        await aio_pika.connect(place.broker_url) as connection,
    ):
        arena = Arena(place.broker_url, database, name)
        await arena.topology.ensure(connection)
        try:
            yield arena
        finally:
            await remove(connection, arena.topology)
            async with connection.channel() as channel:
                for queue in (arena.queue, *(f"{arena.queue}{ending}" for ending in leftovers)):
                    await channel.queue_delete(queue)
                    await channel.exchange_delete(queue)
