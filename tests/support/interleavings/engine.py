"""Where connections to the stand-in for PostgreSQL come from: with a transaction, and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.support.interleavings.database import Client, Database
from tests.support.interleavings.session import Columns, Session
from worker.database.ledger import Entry


class Sessions:
    """`async_sessionmaker`, as far as the worker uses it."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Session]:
        """A transaction that is committed at the end, or rolled back."""
        session = Session(self._database, self._client)
        with _done_with(session):
            try:
                yield session
                await session.commit()
            except Exception:
                await session.roll_back()
                raise


class Autocommit:
    """The engine for what comes alone, as far as the worker uses it."""

    def __init__(self, database: Database, client: Client) -> None:
        self._database = database
        self._client = client

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[LoneConnection]:
        """A connection whose statements commit by themselves."""
        session = Session(self._database, self._client, autocommit=True)
        session.open()
        with _done_with(session):
            yield LoneConnection(session)


@contextmanager
def _done_with(session: Session) -> Iterator[None]:
    """Leave it in the end.

    Who is cancelled gives the connection up, as SQLAlchemy does, be it while it rolls back.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException:
        session.link.cut(arriving=session.link.under_way)
        raise
    finally:
        session.leave()


class LoneConnection(AsyncConnection):
    """`AsyncConnection`, by which the worker tells that there is no transaction."""

    def __init__(self, session: Session) -> None:
        self.client = session.client
        self._session = session
        self.link = session.link

    async def execute(  # type: ignore[override]
        self, statement: Any, values: Any = None, **_: Any
    ) -> Any:
        """See `Session.execute`."""
        return await self._session.execute(statement, values)

    async def record(self, entries: Sequence[Entry], *, again: Collection[str]) -> None:
        """See `ledger.record`."""
        await self._session.record(entries, again=again)
        self.link.world.tell("recorded alone")

    async def insert_and_record(self, columns: Columns, entry: Entry, id_to_come: int) -> int:
        """See `ledger.insert_and_record`."""
        try:
            id_ = await self._session.insert_and_record(columns, entry, id_to_come)
        except IntegrityError:
            self.link.world.tell("alone, and in conflict", entry.command_id)
            raise
        self.link.world.tell("created alone", entry.command_id)
        return id_
