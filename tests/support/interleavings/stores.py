"""A database to be tested, PostgreSQL or its stand-in: what both must be able to do."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import wraps
from typing import Any, TypeVar, cast

import pytest
from sqlalchemy import text

from tests.conftest import make_settings
from tests.support.interleavings.database import Database, server_says
from tests.support.interleavings.engine import Sessions
from tests.support.interleavings.schedule import Choices, World
from tests.support.interleavings.session import Session
from worker.core.messages import ResultEvent, new_id
from worker.database import ledger
from worker.database.engine import make_engine, make_sessions
from worker.database.ledger import DONE, Entry
from worker.testing.proxy import Proxy

T = TypeVar("T")


class Store(ABC):
    """Ledger and rows, as a transaction uses them."""

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test to its end."""
        asyncio.run(test)

    @abstractmethod
    def begin(self) -> AbstractAsyncContextManager[Any]:
        """A transaction."""

    @abstractmethod
    async def lookup(self, session: Any, ids: Sequence[str]) -> dict[str, Entry]: ...

    @abstractmethod
    async def record(self, session: Any, entry: Entry, *, again: bool = False) -> None: ...

    @abstractmethod
    async def apply(self, session: Any, key: str) -> int:
        """Change the row of a key; return how often it has been changed."""

    @abstractmethod
    async def fail(self, session: Any) -> None:
        """Have a statement fail."""

    @abstractmethod
    async def lose(self, session: Any) -> None:
        """Let the connection break, with nothing under way."""

    @abstractmethod
    def lose_the_reply_to(self, moment: bytes) -> None:
        """Let what these bytes go with be carried out, and its connection break."""

    async def count(self, key: str) -> int:
        """How often the row was changed, by what is committed."""
        async with self.begin() as session:
            number = await self.apply(session, key)
            await self.roll_back(session)
        return number - 1

    @abstractmethod
    async def roll_back(self, session: Any) -> None: ...


class StandIn(Store):
    """The stand-in, in a world where all happens in order."""

    alive = True

    def __init__(self, _: str) -> None:
        self.world = World(Choices(b""))
        self.database = Database(self.world)
        self.world.sources = [self.database.moves]
        self.reply_is_lost = False

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: self.world.loop) as runner:
            runner.run(test)

    def begin(self) -> AbstractAsyncContextManager[Session]:
        return Sessions(self.database, self).begin()

    async def lookup(self, session: Session, ids: Sequence[str]) -> dict[str, Entry]:
        return await session.lookup(ids)

    async def record(self, session: Session, entry: Entry, *, again: bool = False) -> None:
        await session.record([entry], again=[entry.command_id] if again else [])

    async def apply(self, session: Session, key: str) -> int:
        number = await session.apply(key, "")
        if self.reply_is_lost:  # the next step is the COMMIT
            self.world.loop.call_soon(self._cut, session)
        return number

    def _cut(self, session: Session) -> None:
        if not session.link.under_way:
            self.world.loop.call_soon(self._cut, session)
            return
        self.reply_is_lost = False
        session.link.cut(arriving=1)

    async def fail(self, session: Session) -> None:
        await session.fail(server_says("22012"))

    async def lose(self, session: Session) -> None:
        session.link.cut()

    def lose_the_reply_to(self, moment: bytes) -> None:
        self.reply_is_lost = True

    async def roll_back(self, session: Session) -> None:
        await session.roll_back()
        self.database.connections.remove(session)


class PostgreSQL(Store):
    """The database of this test run, by way of a proxy that can break links."""

    def __init__(self, url: str) -> None:
        self.proxy = Proxy.before(url)
        self.url = url

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        async def through_the_proxy() -> None:
            settings = make_settings("amqp://nowhere", self.proxy.through(self.url))
            self.engine = make_engine(settings.database)
            self.sessions = make_sessions(self.engine)
            async with self.engine.begin() as connection:
                await connection.execute(text("TRUNCATE users, command_ledger CASCADE"))
            try:
                await test
            finally:
                await self.engine.dispose()

        with self.proxy:
            asyncio.run(through_the_proxy())

    def begin(self) -> AbstractAsyncContextManager[Any]:
        return self.sessions.begin()

    async def lookup(self, session: Any, ids: Sequence[str]) -> dict[str, Entry]:
        return await ledger.lookup(session, ids)

    async def record(self, session: Any, entry: Entry, *, again: bool = False) -> None:
        await ledger.record(session, [entry], again=[entry.command_id] if again else [])

    async def apply(self, session: Any, key: str) -> int:
        found = await session.execute(
            text(
                "INSERT INTO users (username, email, version, created_on, updated_on)"
                " VALUES (CAST(:key AS text), CAST(:key AS text) || '@x.example', 1, now(), now())"
                " ON CONFLICT (username) DO UPDATE SET version = users.version + 1"
                " RETURNING version"
            ),
            {"key": key},
        )
        return cast(int, found.scalar_one())

    async def fail(self, session: Any) -> None:
        await session.execute(text("SELECT 1 / 0"))

    async def lose(self, session: Any) -> None:
        self.proxy.reset()

    def lose_the_reply_to(self, moment: bytes) -> None:
        self.proxy.cut_when(moment, deliver=True)

    async def roll_back(self, session: Any) -> None:
        await session.rollback()


Kinds = type[StandIn | PostgreSQL]
Conforming = Callable[[Kinds, str], None]


def conforms(
    test: Callable[[Store], Coroutine[Any, Any, None]],
) -> Conforming:
    """Run it against both."""

    @pytest.mark.servers
    @pytest.mark.parametrize("kind", [StandIn, PostgreSQL])
    @wraps(test)
    def run(kind: Kinds, shared_database: str) -> None:
        store = kind(shared_database)
        store.run(test(store))

    vars(run).pop("__wrapped__")  # pytest would read the signature of that
    return cast(Conforming, run)


def entry(id_: str = "x", outcome: str = DONE, body: bytes = b"{}") -> Entry:
    return Entry(id_, bytes(32), outcome, ResultEvent(new_id(), "user.noted", body))


class Undone(Exception):
    """Rolls a transaction back."""


async def beside_one_who_holds(
    store: Store, id_: str, then: Callable[[], Awaitable[T]], *, commits: bool
) -> asyncio.Future[T]:
    """What becomes of `then`, begun while another transaction has recorded this id.

    It must wait for that one's end.
    """
    written = asyncio.Event()

    async def second() -> T:
        await written.wait()
        return await then()

    waiting = asyncio.ensure_future(second())
    with suppress(Undone):
        async with store.begin() as session:
            await store.record(session, entry(id_))
            written.set()
            await asyncio.sleep(0.2)
            assert not waiting.done()
            if not commits:
                raise Undone
    return waiting
