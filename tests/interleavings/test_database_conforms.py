"""The stand-in for the database does as PostgreSQL does, wherever the worker relies on it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import wraps
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.conftest import make_settings
from tests.databases import fresh_database
from tests.interleavings.database import Database, Session, Sessions, server_says
from tests.interleavings.schedule import Choices, World
from worker.database import ledger
from worker.database.engine import make_engine, make_sessions
from worker.database.ledger import DEAD_LETTERED, DONE, Entry, LedgerRace
from worker.messages import Answer, new_id
from worker.retry import Kind, classify, is_doubtful
from worker.testing.proxy import COMMIT, Proxy


@pytest.fixture(scope="module")
async def shared_database(server_url: str, template_database: str) -> AsyncIterator[str]:
    """One for all of these tests, which empty it."""
    name = f"{template_database}_conforms"
    async with fresh_database(server_url, name, template=template_database) as url:
        yield url


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
    def lose_the_reply_to_commit(self) -> None:
        """Let the next COMMIT be carried out, and its connection break."""

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

    def lose_the_reply_to_commit(self) -> None:
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

    def lose_the_reply_to_commit(self) -> None:
        self.proxy.cut_when(COMMIT, deliver=True)

    async def roll_back(self, session: Any) -> None:
        await session.rollback()


Conforming = Callable[[type[StandIn | PostgreSQL], str], None]


def conforms(
    test: Callable[[Store], Coroutine[Any, Any, None]],
) -> Conforming:
    """Run it against both."""

    @pytest.mark.servers
    @pytest.mark.parametrize("kind", [StandIn, PostgreSQL])
    @wraps(test)
    def run(kind: type[StandIn | PostgreSQL], shared_database: str) -> None:
        store = kind(shared_database)
        store.run(test(store))

    vars(run).pop("__wrapped__")  # pytest would read the signature of that
    return cast(Conforming, run)


def entry(id_: str = "x", outcome: str = DONE, body: bytes = b"{}") -> Entry:
    return Entry(id_, bytes(32), outcome, Answer(new_id(), "user.noted", body))


class Undone(Exception):
    """Rolls a transaction back."""


@conforms
async def test_what_is_committed_stays_and_what_is_rolled_back_does_not(store: Store) -> None:
    async with store.begin() as session:
        assert await store.apply(session, "a") == 1
        await store.record(session, entry("x", body=b'{"a": 1}'))
    with suppress(Undone):
        async with store.begin() as session:
            assert await store.apply(session, "a") == 2
            await store.record(session, entry("y"))
            raise Undone
    async with store.begin() as session:
        found = await store.lookup(session, ["x", "y"])
    assert found.keys() == {"x"}
    assert found["x"].answer.body == b'{"a": 1}'
    assert await store.count("a") == 1


@conforms
async def test_what_is_not_committed_is_seen_by_its_own_transaction_alone(store: Store) -> None:
    async def look() -> dict[str, Entry]:
        async with store.begin() as other:
            return await store.lookup(other, ["x"])

    async with store.begin() as session:
        await store.record(session, entry("x"))
        assert (await store.lookup(session, ["x"])).keys() == {"x"}
        # In a task of its own: none may hold two connections.
        assert await asyncio.create_task(look()) == {}
    assert (await look()).keys() == {"x"}


@pytest.mark.parametrize("commits", [True, False])
def test_of_two_with_one_id_the_second_waits(
    shared_database: str, commits: bool, kind: type[StandIn | PostgreSQL]
) -> None:
    store = kind(shared_database)

    async def test() -> None:
        written = asyncio.Event()

        async def first() -> None:
            async with store.begin() as session:
                await store.record(session, entry("x"))
                written.set()
                await asyncio.sleep(0.2)
                assert not second.done()
                if not commits:
                    raise Undone

        async def then() -> None:
            await written.wait()
            async with store.begin() as session:
                await store.record(session, entry("x"))

        second = asyncio.ensure_future(then())
        await asyncio.gather(first(), return_exceptions=True)
        if commits:
            with pytest.raises(LedgerRace):
                await second
        else:
            await second

    store.run(test())


@pytest.fixture(params=[StandIn, PostgreSQL])
def kind(request: pytest.FixtureRequest) -> type[StandIn | PostgreSQL]:
    return cast(type[StandIn | PostgreSQL], request.param)


@conforms
async def test_only_what_had_no_effect_is_recorded_anew(store: Store) -> None:
    for id_, outcome in (("x", DEAD_LETTERED), ("y", DONE)):
        async with store.begin() as session:
            await store.record(session, entry(id_, outcome))
    for id_, again in (("x", False), ("y", False), ("y", True)):
        with pytest.raises(LedgerRace):
            async with store.begin() as session:
                await store.record(session, entry(id_), again=again)
    async with store.begin() as session:
        await store.record(session, entry("x"), again=True)
    async with store.begin() as session:
        assert (await store.lookup(session, ["x"]))["x"].outcome == DONE


@conforms
async def test_a_row_is_locked_until_the_end(store: Store) -> None:
    written = asyncio.Event()

    async def second() -> int:
        await written.wait()
        async with store.begin() as session:
            return await store.apply(session, "a")

    waiting = asyncio.ensure_future(second())
    async with store.begin() as session:
        await store.apply(session, "a")
        written.set()
        await asyncio.sleep(0.2)
        assert not waiting.done()
    assert await waiting == 2


@conforms
async def test_who_would_wait_in_a_circle_is_told_and_may_try_again(store: Store) -> None:
    both_wrote = asyncio.Barrier(2)

    async def crosswise(first: str, then: str) -> None:
        async with store.begin() as session:
            await store.apply(session, first)
            await both_wrote.wait()
            await store.apply(session, then)

    ends = await asyncio.gather(crosswise("a", "b"), crosswise("b", "a"), return_exceptions=True)
    (fault,) = [end for end in ends if end is not None]
    assert isinstance(fault, Exception)
    assert classify(fault) is Kind.TRANSIENT
    assert not is_doubtful(fault)
    assert await store.count("a") == await store.count("b") == 1


@conforms
async def test_after_a_fault_nothing_more_is_done(store: Store) -> None:
    async def go_on() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            with pytest.raises(DBAPIError) as first:
                await store.fail(session)
            assert classify(first.value) is Kind.PERMANENT
            await store.apply(session, "a")

    with pytest.raises(DBAPIError) as caught:
        await go_on()
    assert not is_doubtful(caught.value)
    assert await store.count("a") == 0


@conforms
async def test_who_is_cancelled_leaves_nothing(store: Store) -> None:
    wrote = asyncio.Event()

    async def write() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            wrote.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(write())
    await wrote.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.count("a") == 0


@conforms
async def test_a_lost_connection_is_an_outage_and_nothing_is_done(store: Store) -> None:
    async def lose() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")
            await store.lose(session)
            await store.apply(session, "a")

    with pytest.raises(DBAPIError) as caught:
        await lose()
    assert classify(caught.value) is Kind.OUTAGE
    assert is_doubtful(caught.value)
    assert await store.count("a") == 0


@conforms
async def test_a_commit_whose_reply_is_lost_was_done(store: Store) -> None:
    async def change() -> None:
        async with store.begin() as session:
            await store.apply(session, "a")

    store.lose_the_reply_to_commit()
    with pytest.raises(DBAPIError) as caught:
        await change()
    assert classify(caught.value) is Kind.OUTAGE
    assert is_doubtful(caught.value)
    assert await store.count("a") == 1
