"""One transaction's work: the session, the rows that it touches, the events that it still owes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.core.registry import Entity, Registry
from worker.processing.row_cache import Record, RowCache


class UnitOfWork:
    """What the commands of a group share while they run in one transaction.

    Commands see each other's effects as if each had been committed before the next began, while
    the SQL is sent for many at once. `session` is for what asks the database in words of its own;
    on a connection, which is in no transaction, nothing but a look-up may be asked. One that
    `trusts_constraints` looks up no unique value that is about to be written.
    """

    def __init__(
        self,
        session: AsyncSession | AsyncConnection,
        registry: Registry,
        *,
        trusts_constraints: bool = False,
    ) -> None:
        self._session = session
        self.trusts_constraints = trusts_constraints
        self.registry = registry
        self._rows: dict[str, RowCache] = {}
        self._disturbed: set[str] = set()
        self._owed: dict[Record, Callable[[], None]] = {}

    @property
    def session(self) -> AsyncSession:
        """The transaction's session."""
        assert not isinstance(self._session, AsyncConnection)
        return self._session

    def rows(self, entity: Entity) -> RowCache:
        """The rows of an entity that this transaction knows of."""
        if entity.name not in self._rows:
            self._rows[entity.name] = RowCache(self._session, entity, self.flush)
        return self._rows[entity.name]

    def disturb(self, entities: Iterable[str]) -> None:
        """What is to be written may have the database change rows of these by itself."""
        self._disturbed.update(entities)

    async def rows_now(self, entity: Entity) -> RowCache:
        """The rows of an entity, of which all is forgotten that the database may have changed."""
        if entity.name in self._disturbed:
            await self.flush()
            for name in self._disturbed:
                self._rows.pop(name, None)
            self._disturbed.clear()
        return self.rows(entity)

    def owe(self, record: Record, write_event: Callable[[], None]) -> None:
        """Write a row's event once the database has said what has become of it."""
        self._owed[record] = write_event

    async def flush(self) -> None:
        """Send all changes, and write the events that waited for that."""
        # What is referred to comes before what refers to it, and goes after it.
        names = [name for name in self.registry.by_dependency if name in self._rows]
        dirty = [rows for rows in map(self._rows.__getitem__, names) if rows.is_dirty]
        for rows in dirty:
            await rows.insert()
        for rows in dirty:
            await rows.update()
        for rows in reversed(dirty):
            await rows.remove()
        for rows in dirty:
            rows.flushed()
        for write_event in self._owed.values():
            write_event()
        self._owed.clear()

    async def isolate(self) -> None:
        """Forget all rows, so that a handler of one's own reads them afresh, as if alone."""
        await self.flush()
        self.session.expunge_all()
        self._rows.clear()
        self._disturbed.clear()
