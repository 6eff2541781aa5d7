"""A worker process: `worker.service.service.Service` as it is, on the stand-ins.

What is replaced is named in `seams`: the connection to the broker, the engine and what comes of it,
the functions of the ledger, the look at the database's health, and the clock.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Self, cast

import pytest
from aio_pika.abc import AbstractConnection

from tests.support.interleavings.broker import Broker, Connection
from tests.support.interleavings.commands import REGISTRY
from tests.support.interleavings.database import Database
from tests.support.interleavings.engine import Sessions
from tests.support.interleavings.schedule import World
from tests.support.interleavings.session import Session
from worker.broker import connection as broker_connection
from worker.broker import declaration, topology_watch
from worker.broker.publisher import batch, isolation, publisher
from worker.core import backoff
from worker.core.errors import Unreachable
from worker.database import ledger
from worker.database.health import DatabaseWatch
from worker.database.ledger import Entry
from worker.processing import failures, processor, transaction
from worker.service import service
from worker.service.service import Service
from worker.settings.settings import Settings
from worker.telemetry.readiness import Component

_current: ContextVar[Process] = ContextVar("process")


class Process:
    """One worker, from its start to its end, however it ends."""

    def __init__(
        self,
        world: World,
        broker: Broker,
        database: Database,
        settings: Settings,
        attempts: Counter[int],
        *,
        prompt: bool,
        on_end: Callable[[Process], None],
    ) -> None:
        self.world = world
        self.broker = broker
        self.database = database
        self.attempts = attempts
        self.alive = True
        self.connections: list[Connection] = []
        self.service: Service | None = None
        self._settings = settings
        self._prompt = prompt
        self._on_end = on_end
        self.task = world.loop.create_task(self._run())
        self.task.add_done_callback(lambda _: self._end())

    async def _run(self) -> None:
        _current.set(self)
        self.service = Service(self._settings, processes=0, registry=REGISTRY)
        await self.service.run()

    @property
    def parts(self) -> list[Component]:
        """What its readiness depends on."""
        return [*cast(_Health, self.service.health).parts.values()] if self.service else []

    def _end(self) -> None:
        """Gone, as its parent sees it; once."""
        if self.alive:
            self.alive = False
            self._on_end(self)

    def stop(self) -> None:
        """As SIGTERM does."""
        if self.service is not None:
            self.service.stop()

    def stop_at_once(self) -> None:
        """As a second signal does."""
        self.task.cancel()

    def kill(self) -> None:
        """As kill -9 does: nothing that it does from now on is seen outside.

        What it has sent may still arrive, or the first part of it.
        """
        if not self.alive:
            return
        choices = self.world.choices
        for connection in self.connections:
            link = connection.link
            link.cut(arriving=choices.below(link.under_way + 1))
            if self._prompt:
                link.notice_now()
        for session in list(self.database.connections):
            if session.client is self:
                session.link.cut(arriving=choices.below(session.link.under_way + 1))
        self._end()
        self._bury()

    def _bury(self) -> None:
        """End its tasks, which go on in the dark."""
        self.task.cancel()
        if not self.task.done():
            self.world.loop.call_later(1, self._bury)


class _Watch(DatabaseWatch):
    def __init__(self, engine: Any, part: Component, **_: object) -> None:
        super().__init__(engine, part)

    async def keep_looking(self) -> None:
        await _for_ever()

    async def _schema_is_in_order(self) -> None:
        await self._probe()

    async def _probe(self) -> None:
        process = _current.get()
        if not process.alive:
            raise Unreachable("the process is dead")
        await process.database.probe()


class _Health:
    """The parts alone, without a page."""

    def __init__(self, *_: object) -> None:
        self.metrics = self
        self.parts: dict[str, Component] = {}

    def add(self, _: object) -> None:
        """Metrics are not looked at."""

    def part(self, name: str) -> Component:
        return self.parts.setdefault(name, Component(name))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is no server to stop."""


class _Engine:
    async def dispose(self) -> None:
        """There is no pool."""


@asynccontextmanager
async def _connect(_: object, name: str, *_more: object) -> AsyncIterator[AbstractConnection]:
    process = _current.get()
    if not process.alive:
        raise Unreachable("the process is dead")
    connection = Connection(process.broker, process.world, name)
    process.connections.append(connection)
    try:
        yield connection
    finally:
        process.connections.remove(connection)
        with suppress(Exception):
            await connection.close()


async def _ensure(self: declaration.Declaration) -> None:
    connection = cast(Connection, self._connection)
    await connection.link.ask(connection.broker.ensure)


async def _lookup(session: Session, ids: Sequence[str]) -> dict[str, Entry]:
    return await session.lookup(ids)


async def _record(
    session: Session, entries: Sequence[Entry], *, again: Collection[str] = ()
) -> None:
    await session.record(entries, again=again)


async def _nothing(*_: object) -> None: ...


async def _for_ever(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


def _sessions(_: object) -> Sessions:
    process = _current.get()
    return Sessions(process.database, process)


@contextmanager
def seams(world: World, seed: int) -> Iterator[None]:
    """Everything that stands between the worker and the outside, replaced."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(broker_connection, "connect", _connect)
        patch.setattr(declaration.Declaration, "ensure", _ensure)
        patch.setattr(topology_watch.TopologyWatch, "_keep_whole", _for_ever)
        patch.setattr(isolation, "connect", _connect)
        patch.setattr(publisher, "connect", _connect)
        patch.setattr(batch, "knows", lambda _: True)
        patch.setattr(service, "make_engine", lambda *_, **__: _Engine())
        # One statement that is a transaction of its own: tried on PostgreSQL alone.
        patch.setattr(service, "autocommit", lambda _: None)
        patch.setattr(service, "make_sessions", _sessions)
        patch.setattr(service, "DatabaseWatch", _Watch)
        patch.setattr(service, "Health", _Health)
        patch.setattr(service, "keep_pruned", _for_ever)
        patch.setattr(ledger, "lookup", _lookup)
        patch.setattr(ledger, "record", _record)
        patch.setattr(transaction, "monotonic", world.loop.time)
        patch.setattr(failures, "monotonic", world.loop.time)
        patch.setattr(processor, "wait_briefly", _nothing)  # locks time out nowhere here
        backoff._random.seed(seed)
        yield
