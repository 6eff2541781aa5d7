"""Where connections to the stand-in for PostgreSQL come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from tests.support.interleavings.database import Client, Database
from tests.support.interleavings.session import Session


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
