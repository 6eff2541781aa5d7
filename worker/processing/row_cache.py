"""The rows of one entity within one transaction: what is known of them, and what is to be written.

Rows are records, not instances of the ORM: a record costs a tenth. Handlers of one's own get
the ORM's (see `Work.isolate`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from worker.core.messages import Target
from worker.core.registry import Entity
from worker.database import rows_sql


class Record:
    """One row: its columns by name, readable as attributes, too."""

    __slots__ = ("entity", "values")

    def __init__(self, entity: Entity, values: dict[str, Any]) -> None:
        self.entity = entity
        self.values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"{self.entity.name} has no column {name!r}") from None

    @property
    def id(self) -> int | None:
        """Its identity; none until it has been inserted."""
        return self.values.get("id")

    @property
    def data(self) -> dict[str, Any]:
        """The row as an event shows it."""
        return {name: self.values[name] for name in self.entity.columns}


class Rows:
    """What a transaction knows of the rows of one entity, under each of their unique fields.

    A field's value is known to have a row, known to have none, or unknown and then looked up.
    Changes are kept and written together; `flush` is called before the database is asked, so that
    its answers hold what has been changed.
    """

    def __init__(
        self,
        session: AsyncSession,
        entity: Entity,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._entity = entity
        self._flush = flush
        table = entity.model.__table__
        assert isinstance(table, Table)
        self._table = table
        self._known: dict[str, dict[Any, Record | None]] = {name: {} for name in entity.keys}
        self._ours: set[Record] = set()  # locked, or made, by this transaction
        self._freed: set[tuple[str, Any]] = set()
        self._new: list[Record] = []
        self._changed: dict[Record, set[str]] = {}
        self._gone: list[Record] = []
        self._counts: dict[tuple[str, Any], int] = {}

    async def target(self, target: Target) -> Record | None:
        """The row, locked against other transactions, or `None`."""
        if self._must_ask(target.field, target.value, lock=True):
            await self.load({target.field: [target.value]}, lock=True)
        return self._get(target.field, target.value)

    async def find(self, field: str, value: Any) -> Record | None:
        """The row, or `None`; not locked, so the database's constraints have the last word."""
        if self._must_ask(field, value, lock=False):
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
        if self.is_dirty:
            await self._flush()
        ignore_case = self._entity.model.ignore_case
        query = rows_sql.find_rows(self._table, tuple(missing), ignore_case, lock=lock)
        found = await self._session.execute(query, rows_sql.given(missing))
        for field, values in missing.items():
            known = self._known[field]
            for value in values:
                known[self._entity.normal(field, value)] = None
        for row in found.mappings():
            record = self._learn(dict(row))
            if lock:
                self._ours.add(record)

    def is_freed(self, field: str, value: Any) -> bool:
        """Whether this transaction gave the value up without having told the database."""
        return (field, self._entity.normal(field, value)) in self._freed

    async def count(self, field: str, value: Any, *, beside: Iterable[Any] = ()) -> int:
        """How many rows have the value now; where it must be asked, also for those `beside` it."""
        if self.is_dirty:
            await self.load_counts(field, [value])
        elif (field, value) not in self._counts:
            await self.load_counts(field, [value, *beside])
        return self._counts[field, value]

    async def load_counts(self, field: str, values: list[Any]) -> None:
        """Count for many values in one statement."""
        if self.is_dirty:
            await self._flush()
        counted = await self._session.execute(
            rows_sql.count_rows(self._table, field), rows_sql.given({field: values})
        )
        self._counts |= {(field, value): 0 for value in values}
        self._counts |= {(field, value): number for value, number in counted}

    def create(self, values: dict[str, Any]) -> Record:
        """A new row; it has an id once it is flushed."""
        record = Record(self._entity, values)
        self._new.append(record)
        self._ours.add(record)
        self._index(record)
        return record

    def change(self, record: Record, values: Mapping[str, Any]) -> None:
        """Give some columns other values."""
        renamed = any(name in self._known for name in values)
        if renamed:
            self._free(record)
        record.values.update(values)
        if renamed:
            self._index(record)
        self._changed.setdefault(record, set()).update(values)

    def delete(self, record: Record) -> None:
        """Remove a row."""
        self._free(record)
        self._changed.pop(record, None)
        self._gone.append(record)

    def own_ids(self) -> Iterator[int]:
        """Of the rows that this transaction has locked or made."""
        return (record.id for record in self._ours if record.id is not None)

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._new or self._changed or self._gone)

    async def insert(self) -> None:
        """Write the new rows, and complete them with their ids and the server's defaults."""
        alike = _alike((record, record.values) for record in self._new)
        self._new = []
        for names, records in alike.items():
            statement = rows_sql.insert_rows(self._table, names)
            found = await self._session.execute(statement, _columns(records, names))
            # Ascending ids are in the order of the records; see `insert_rows`.
            filled_in = sorted(found.mappings(), key=lambda row: row["id"])
            for record, rest in zip(records, filled_in, strict=True):
                record.values.update(rest)
                self._known["id"][record.id] = record

    async def update(self) -> None:
        """Write what has changed in rows that there were."""
        alike = _alike((record, sorted(names)) for record, names in self._changed.items())
        self._changed = {}
        for names, records in alike.items():
            statement = rows_sql.update_rows(self._table, names)
            await self._session.execute(statement, _columns(records, ("id", *names)))

    async def remove(self) -> None:
        """Delete the rows that are gone."""
        if self._gone:
            ids = [record.id for record in self._gone]
            self._gone = []
            await self._session.execute(
                rows_sql.delete_rows(self._table), rows_sql.given({"id": ids})
            )

    def flushed(self) -> None:
        """The database has been told everything."""
        self._freed.clear()
        self._counts.clear()

    def _learn(self, values: dict[str, Any]) -> Record:
        """Take what the database said of a row in place of what was known of it."""
        record = self._known["id"].get(values["id"])
        if record is None:
            record = Record(self._entity, values)
        else:
            for field, known in self._known.items():
                known[self._entity.normal(field, record.values[field])] = None
            record.values = values
        self._index(record)
        return record

    def _index(self, record: Record) -> None:
        normal = self._entity.normal
        for field, known in self._known.items():
            value = record.values.get(field)
            if value is not None:
                known[normal(field, value)] = record

    def _free(self, record: Record) -> None:
        """The row is gone, or its unique values are about to change."""
        for field, known in self._known.items():
            value = self._entity.normal(field, record.values.get(field))
            known[value] = None
            self._freed.add((field, value))

    def _get(self, field: str, value: Any) -> Record | None:
        return self._known[field].get(self._entity.normal(field, value))

    def _must_ask(self, field: str, value: Any, lock: bool) -> bool:
        known, normal = self._known[field], self._entity.normal(field, value)
        if normal not in known:
            return True
        record = known[normal]
        # Nobody else can change a row of this transaction's own making.
        return lock and record is not None and record not in self._ours


def _alike(
    records: Iterable[tuple[Record, Iterable[str]]],
) -> dict[tuple[str, ...], list[Record]]:
    """The records by the columns that are to be written."""
    alike = defaultdict(list)
    for record, names in records:
        alike[tuple(names)].append(record)
    return alike


def _columns(records: Iterable[Record], names: Iterable[str]) -> dict[str, Sequence[Any]]:
    return rows_sql.given({name: [record.values[name] for record in records] for name in names})
