"""Where a run takes place: two servers, workers with links of their own, publisher and observer."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import asyncpg
from pika.adapters.blocking_connection import BlockingChannel

from dev.chaos import amqp
from dev.chaos.book import LiveBook
from dev.chaos.brokers import Brokers, Ways
from dev.chaos.disk import Disk
from dev.chaos.fleet import Worker, environment_of, is_ready, living
from dev.chaos.helpers import Helper, Publisher
from dev.chaos.migrations import Migrations
from dev.chaos.stream import read_stream
from dev.databases import dsn
from dev.servers.postgres import PrivatePostgres
from worker.testing.journal import JournalWriter
from worker.testing.proxy import Proxy
from worker.testing.snapshot import command_queues, take_stock

PROBE_USERS = 20
PROBE_SECONDS = 5
"""How long one probe is waited for before another is sent."""
_SETTINGS = {
    "WORKER_ENTITIES": "dev.chaos.entities",
    "WORKER_LOG_FORMAT": "json",
    # A dead link is to be noticed while it is dead.
    "WORKER_BROKER__HEARTBEAT_SECONDS": "2",
    "WORKER_RETRY_BASE_SECONDS": "0.05",
    "WORKER_RETRY_MAX_SECONDS": "0.5",
    "WORKER_HANDLER_TIMEOUT_SECONDS": "2",
}


@dataclass(frozen=True)
class Links:
    """A worker's ways to its servers."""

    broker: Ways
    database: Proxy


class Place:
    """Everything that a fault may break, and what tells whether it is well again."""

    namespace = "chaos"
    commands = f"{namespace}.commands"
    events = f"{namespace}.events"
    dead_letters = f"{namespace}.dead-letters"
    observed = f"{namespace}.observer"

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        rate: float,
        workers: Sequence[int],
        partitions: int,
        nodes: int,
    ) -> None:
        """`workers` are the numbers of processes of each, `nodes` those of RabbitMQ."""
        self.folder = folder
        self.broker = Brokers(folder / "broker", nodes)
        self.database = PrivatePostgres(folder / "database", settings={"max_connections": "60"})
        self.workers: list[Worker] = []
        self.links: dict[str, Links] = {}
        self.disk: Disk | None = None
        self.migrations = Migrations(folder / "migrations")
        self.book = LiveBook(folder / "book")
        self._seed, self._rate, self._sizes, self._partitions = seed, rate, workers, partitions
        self._probes = itertools.count(1)
        self._recoveries = itertools.count(1)
        self._recovery_pen = JournalWriter(folder / "book", "recovery")
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def command_queues(self) -> list[str]:
        """Where commands wait: in one queue, or in one for each partition."""
        shared, *partitions = command_queues(self.namespace, self._partitions)
        return partitions or [shared]

    @property
    def dsn(self) -> str:
        """The database as asyncpg takes it, not through any link."""
        return dsn(self.database.url)

    # What faults use

    async def sql(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own, on a connection of their own."""
        connection = await asyncpg.connect(self.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def rows(self, query: str) -> list[dict[str, Any]]:
        """What the database holds."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return [dict(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    async def ctl(self, *arguments: str) -> None:
        """`rabbitmqctl`."""
        await asyncio.to_thread(self.broker.ctl, *arguments)

    async def on_channel(self, use: Callable[[BlockingChannel], object]) -> None:
        """Use a channel of a connection of one's own."""
        await asyncio.to_thread(amqp.on_channel, self.broker.url, use)

    async def send_probes(
        self, verb: str, *, count: int, copies: int = 1, data: Mapping[str, Any] | None = None
    ) -> list[str]:
        """Have commands about the probe users published; their ids."""
        numbers = list(itertools.islice(self._probes, count))
        messages = []
        for number in numbers:
            name = f"probe-user-{number % PROBE_USERS}"
            values = data if data is not None else {"rating": number} if verb == "update" else None
            body = {
                "id": f"probe-{number}",
                "type": f"user.{verb}",
                "key": name,
                "target": {"username": name},
                **({} if values is None else {"data": values}),
            }
            messages.append(_message(body) | {"copies": copies})
        await self.publisher.send(messages)
        return [f"probe-{number}" for number in numbers]

    async def observe_stream(self) -> None:
        """Write down all that the stream of events holds by now."""
        await asyncio.to_thread(read_stream, self.broker.url, self.events, self.folder / "book")

    # What tells whether all is well

    async def ready(self, worker: Worker, within: float) -> bool:
        """Whether a worker says in time that it is ready."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if is_ready(await worker.state(self._client)):
                return True
            await asyncio.sleep(0.1)
        return False

    async def all_ready(self, *, complete: bool = False) -> bool:
        """Whether every living worker says so, now, and the broker knows all of them.

        With `complete` those must live, too, that their parent has yet to start again.
        """
        states = await asyncio.gather(*(worker.state(self._client) for worker in self.workers))
        if not all(map(is_ready, states)):
            return False
        found = await asyncio.to_thread(amqp.consumers_of, self.broker.url, self.commands)
        wanted = sum(map(living, states))
        return found >= wanted and (not complete or wanted == sum(self._sizes))

    async def answers_a_probe(self) -> bool:
        """Whether a command sent now is answered; with partitions, one in each of them."""
        doors: list[amqp.Door] = [(self.commands, "")]
        if self._partitions > 1:
            doors += [("", queue) for queue in self.command_queues]
        return await asyncio.to_thread(
            amqp.ask,
            self.broker.url,
            {f"recovery-{next(self._recoveries)}": door for door in doors},
            PROBE_SECONDS,
            self._recovery_pen,
        )

    # How it ends

    async def stop(self) -> None:
        """Stop workers and observer in order, and take stock of what there is then."""
        for worker in self.workers:
            await worker.close()
        await self._observer.close()
        await asyncio.to_thread(
            take_stock,
            self.folder / "book",
            broker_url=self.broker.url,
            database_url=self.database.url,
            namespace=self.namespace,
            tables={"user": "users", "order": "orders"},
            partitions=self._partitions,
        )

    # How it is built

    async def _start(self) -> None:
        await self._start_servers()
        self._client = await self._stack.enter_async_context(aiohttp.ClientSession())
        common = environment_of(
            _SETTINGS
            | {
                "WORKER_NAMESPACE": self.namespace,
                "WORKER_PARTITIONS": str(self._partitions),
                "WORKER_MIGRATIONS": str(self.migrations.folder),
            }
        )
        direct = common | {
            "WORKER_BROKER__URL": self.broker.url,
            "WORKER_DATABASE__URL": self.database.url,
        }
        await self.migrations.apply(direct)
        await self._use_disk()
        for number, processes in enumerate(self._sizes):
            await self._add_worker(f"worker-{number}", processes, common)
        for worker in self.workers:
            if not await self.ready(worker, within=60):
                raise RuntimeError(f"{worker.name} is not ready: see {worker.folder}")
        await self._start_helpers()
        await self._make_probe_users()

    async def _start_servers(self) -> None:
        for server in (self.broker, self.database):
            await asyncio.to_thread(server.start)
            self._stack.push_async_callback(asyncio.to_thread, server.remove)

    async def _use_disk(self) -> None:
        # Beside the server's data, where its user can come.
        self.disk = await Disk.mount(self.database.state / "disk", self.database)
        if self.disk is None:
            return
        self._stack.push_async_callback(self.disk.unmount)
        await self.sql(
            f"CREATE TABLESPACE chaos LOCATION '{self.disk.path}'",
            "ALTER TABLE users SET TABLESPACE chaos",
            "ALTER TABLE orders SET TABLESPACE chaos",
            "ALTER TABLE command_ledger SET TABLESPACE chaos",
        )

    async def _add_worker(self, name: str, processes: int, common: Mapping[str, str]) -> None:
        broker = await Ways.to(self.broker, self._stack)
        database = await self._stack.enter_async_context(Proxy.before(self.database.url))
        self.links[name] = Links(broker, database)
        environment = {
            **common,
            "WORKER_BROKER__URL": broker.through(self.broker),
            "WORKER_DATABASE__URL": database.through(self.database.url),
        }
        worker = Worker(name, processes, environment, self.folder)
        self._stack.push_async_callback(worker.close)
        await worker.start()
        self.workers.append(worker)

    async def _start_helpers(self) -> None:
        self._observer = Helper(
            "worker.testing.observer",
            [
                *("--broker", self.broker.url, "--namespace", self.namespace),
                *("--book", str(self.folder / "book")),
            ],
            self.folder / "observer.log",
        )
        await self._observer.start()
        self._stack.push_async_callback(self._observer.close)
        await self._observer.says("ready")
        self.publisher = Publisher(
            self.broker.url,
            self.commands,
            seed=self._seed,
            rate=self._rate,
            book=self.folder / "book",
            log=self.folder / "publisher.log",
        )
        await self.publisher.start()
        self._stack.push_async_callback(self.publisher.close)

    async def _make_probe_users(self) -> None:
        messages = []
        for number in range(PROBE_USERS):
            name = f"probe-user-{number}"
            data = {"username": name, "email": f"{name}@example.com"}
            body = {"id": f"make-{name}", "type": "user.create", "key": name, "data": data}
            messages.append(_message(body))
        await self.publisher.send(messages)


def _message(body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": body["id"],
        "type": body["type"],
        "key": body["key"],
        "body": json.dumps(body),
    }
