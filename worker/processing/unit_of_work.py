"""One transaction's work: the session, the rows that it touches, the events that it still owes."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.registry import Entity, Registry
from worker.processing.row_cache import Record, Rows


class Work:
    """What the commands of a group share while they run in one transaction.

    Commands see each other's effects as if each had been committed before the next began, while
    the SQL is sent for many at once. `session` is for what asks the database in words of its own.
    """

    def __init__(self, session: AsyncSession, registry: Registry) -> None:
        self.session = session
        self.registry = registry
        self._rows: dict[str, Rows] = {}
        self._owed: dict[Record, Callable[[], None]] = {}

    def rows(self, entity: Entity) -> Rows:
        """The rows of an entity that this transaction knows of."""
        if entity.name not in self._rows:
            self._rows[entity.name] = Rows(self.session, entity, self.flush)
        return self._rows[entity.name]

    def owe(self, record: Record, write_event: Callable[[], None]) -> None:
        """Write a new row's event once the row has its id."""
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

    async def settle(self, record: Record) -> None:
        """Before a row is changed again, write the event that must still show it as it is."""
        if record in self._owed:
            await self.flush()

    async def isolate(self) -> None:
        """Forget all rows, so that a handler of one's own reads them afresh, as if alone."""
        await self.flush()
        self.session.expunge_all()
        self._rows.clear()
