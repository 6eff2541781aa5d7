"""One transaction's work: the session, the rows that it touches, the events that it still owes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sqlalchemy import ARRAY, Text, any_, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from worker.database.base import Row
from worker.messages import Target
from worker.registry import Entity, Registry


class Work:
    """What the commands of a group share while they run in one transaction.

    Commands see each other's effects as if each had been committed before the next began, while
    the SQL is sent for many at once.
    """

    def __init__(self, session: AsyncSession, registry: Registry) -> None:
        self.session = session
        self.registry = registry
        self._rows: dict[str, Rows] = {}
        self._owed: dict[Row, Callable[[], None]] = {}

    def rows(self, entity: Entity) -> Rows:
        """The rows of an entity that this transaction knows of."""
        if entity.name not in self._rows:
            self._rows[entity.name] = Rows(self, entity)
        return self._rows[entity.name]

    def owe(self, row: Row, write_event: Callable[[], None]) -> None:
        """Write a new row's event once the row has its id."""
        self._owed[row] = write_event

    async def flush(self) -> None:
        """Send all changes, and write the events that waited for that."""
        await self.session.flush()
        for write_event in self._owed.values():
            write_event()
        self._owed.clear()
        for rows in self._rows.values():
            rows.freed.clear()

    async def settle(self, row: Row) -> None:
        """Before a row is changed again, write the event that must still show it as it is."""
        if row in self._owed:
            await self.flush()

    async def isolate(self) -> None:
        """Forget all rows, so that a handler of one's own reads them afresh, as if alone."""
        await self.flush()
        self.session.expunge_all()
        self._rows.clear()


class Rows:
    """The rows of one entity, under each of their unique fields.

    A field's value is known to have a row, known to have none, or unknown and then looked up.
    `freed` holds values given up in this transaction and not yet flushed: until then the database
    would still refuse them to another row.
    """

    def __init__(self, work: Work, entity: Entity) -> None:
        self._work = work
        self._entity = entity
        self._known: dict[str, dict[Any, Row | None]] = {name: {} for name in entity.keys}
        self._locked: set[Row] = set()
        self.freed: set[tuple[str, Any]] = set()

    async def target(self, target: Target) -> Any | None:
        """The row, locked against other transactions, or `None`."""
        await self.load({target.field: [target.value]}, lock=True)
        return self._get(target.field, target.value)

    async def find(self, field: str, value: Any) -> Any | None:
        """The row, or `None`; not locked, so the database's constraints have the last word."""
        await self.load({field: [value]}, lock=False)
        return self._get(field, value)

    async def load(self, wanted: Mapping[str, Iterable[Any]], *, lock: bool) -> None:
        """Look up in one statement all those values that are not known yet."""
        missing = {
            field: values
            for field, all_values in wanted.items()
            if (values := [value for value in all_values if self._must_ask(field, value, lock)])
        }
        if not missing:
            return
        model = self._entity.model
        query = select(model).where(or_(*(self._matches(*item) for item in missing.items())))
        if lock:
            # All in the order of their ids, so that groups do not deadlock. What is known of the
            # rows from an unlocked look is replaced.
            query = query.order_by(model.id).with_for_update()
            query = query.execution_options(populate_existing=True)
        found = (await self._work.session.scalars(query)).all()
        for field, values in missing.items():
            for value in values:
                self._known[field].setdefault(self._entity.normal(field, value), None)
        for row in found:
            self.add(row)
        if lock:
            self._locked.update(found)

    def add(self, row: Row) -> None:
        """A row that is there from now on."""
        for field, known in self._known.items():
            value = getattr(row, field)
            if value is not None:
                known[self._entity.normal(field, value)] = row

    def remove(self, row: Row) -> None:
        """A row that is gone, or whose unique values are about to change."""
        for field, known in self._known.items():
            value = self._entity.normal(field, getattr(row, field))
            known[value] = None
            self.freed.add((field, value))

    def is_freed(self, field: str, value: Any) -> bool:
        """Whether this transaction gave the value up without having told the database."""
        return (field, self._entity.normal(field, value)) in self.freed

    def _get(self, field: str, value: Any) -> Row | None:
        return self._known[field].get(self._entity.normal(field, value))

    def _must_ask(self, field: str, value: Any, lock: bool) -> bool:
        known, normal = self._known[field], self._entity.normal(field, value)
        if normal not in known:
            return True
        row = known[normal]
        # A row of this transaction's own making has no id to lock by, and nobody else sees it.
        return lock and row is not None and row not in self._locked and row.id is not None

    def _matches(self, field: str, values: list[Any]) -> Any:
        """`field` is one of the values: one array, whatever their number, so one prepared text."""
        column = getattr(self._entity.model, field)
        if field in self._entity.model.ignore_case:
            # The server folds both sides, so that its rules of letters apply and its index is used.
            given = func.unnest(bindparam(field, values, type_=ARRAY(Text))).column_valued("given")
            folded = func.array(select(func.lower(given)).scalar_subquery())
            return func.lower(column) == any_(folded)
        array = bindparam(field, values, type_=ARRAY(column.type))
        return column == any_(array)
