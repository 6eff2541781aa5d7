"""The rows of one entity within one transaction: what is known of them, and what is to be written.

Rows are records, not instances of the ORM: a record costs a tenth. Handlers of one's own get
the ORM's (see `UnitOfWork.isolate`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from worker.core.messages import Target
from worker.core.registry import Entity
from worker.database import rows_sql
from worker.processing.pairing import pair


class NotWritten(Exception):
    """The database took a write without an error, and did not carry it out."""


class Record:
    """One row: its columns by name, readable as attributes, too.

    While it is `pending` the database has yet to say what becomes of it.
    """

    __slots__ = ("entity", "known_by", "pending", "values")

    def __init__(self, entity: Entity, values: dict[str, Any], *, pending: bool = False) -> None:
        self.entity = entity
        self.values = values
        self.pending = pending
        self.known_by: list[tuple[str, Any]] = []
        """The unique fields and given values that are known to be this row's."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"{self.entity.name} has no column {name!r}") from None

    @property
    def id(self) -> Any:
        """Its identity; none until it has been inserted."""
        return self.values.get("id")

    @property
    def data(self) -> dict[str, Any]:
        """The row as an event shows it."""
        return self.values


class RowCache:
    """What a transaction knows of the rows of one entity, by given values of their unique fields.

    A value is known to be a row's, known to be nobody's, or unknown and then looked up. Whether two
    values are equal is for the database to say, so of a value that is nobody's this is known only
    until another is written to that field. Changes are kept and written together; `flush` is called
    before the database is asked, so that its answers hold what has been changed.
    """

    def __init__(
        self,
        session: AsyncSession | AsyncConnection,
        entity: Entity,
        flush: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._entity = entity
        self._flush = flush
        self._known: dict[str, dict[Any, Record | int]] = {name: {} for name in entity.keys}
        """Of a value that is nobody's, how many values had been written to the field by then."""
        self._written = dict.fromkeys(entity.keys, 0)
        self._by_id: dict[Any, Record] = {}
        self._ours: set[Record] = set()  # locked, or made, by this transaction
        self._freed: set[tuple[str, Any]] = set()
        self._new: list[Record] = []
        self._changed: dict[Record, dict[str, Any]] = {}
        self._gone: list[Record] = []
        self._counts: dict[tuple[str, Any], int] = {}

    async def target(self, target: Target) -> Record | None:
        """The row, locked against other transactions, or `None`."""
        return await self._find(target.field, target.value, lock=True)

    async def find(self, field: str, value: Any) -> Record | None:
        """The row, or `None`; not locked, so the database's constraints have the last word."""
        return await self._find(field, value)

    async def holder(self, field: str, value: Any) -> Record | None:
        """The row that is seen to have a unique value which is about to be written.

        Where there is none, the database may still know better as it is written.
        """
        if (field, value) in self._freed:
            await self._flush()
        return await self._find(field, value, is_sure=False)

    async def _find(
        self, field: str, value: Any, *, lock: bool = False, is_sure: bool = True
    ) -> Record | None:
        while True:
            if self._must_ask(field, value, lock=lock, is_sure=is_sure):
                await self.load({field: [value]}, lock=lock)
            found = self._known[field][value]
            if not isinstance(found, Record):
                return None
            if not found.pending:
                return found
            await self._flush()

    def _must_ask(self, field: str, value: Any, *, lock: bool, is_sure: bool = True) -> bool:
        found = self._known[field].get(value)
        if isinstance(found, Record):
            # Nobody else can change a row of this transaction's own making.
            return lock and found not in self._ours
        return found is None or (is_sure and found != self._written[field])

    async def load(self, wanted: Mapping[str, Iterable[Any]], *, lock: bool) -> None:
        """Look up in one statement all those values that are not known yet."""
        missing = {
            field: values
            for field, all_values in wanted.items()
            if (values := [each for each in all_values if self._must_ask(field, each, lock=lock)])
        }
        if not missing:
            return
        if self.is_dirty:
            await self._flush()
        for field, values in missing.items():
            known, now = self._known[field], self._written[field]
            for value in values:
                known[value] = now
        most = max(map(len, missing.values()))
        for part in rows_sql.parts(range(most), len(missing)):
            cut = {field: values[part[0] : part[-1] + 1] for field, values in missing.items()}
            await self._load_part({field: each for field, each in cut.items() if each}, lock=lock)

    async def _load_part(self, wanted: Mapping[str, Sequence[Any]], *, lock: bool) -> None:
        size = rows_sql.size_for(max(map(len, wanted.values())))
        query = rows_sql.find_rows(self._entity, tuple(wanted), size, lock=lock)
        found = await self._session.execute(query, rows_sql.given([*wanted.values()]))
        width = 1 + len(self._entity.columns)
        for place, *rest in found:
            record = self._learn(dict(zip(self._entity.columns, rest, strict=False)))
            if lock:
                self._ours.add(record)
            for (field, values), is_its in zip(wanted.items(), rest[width - 1 :], strict=True):
                if is_its:
                    self._know(field, values[min(place, len(values) - 1)], record)

    async def count(self, field: str, value: Any, *, beside: Iterable[Any] = ()) -> int:
        """How many rows have the value now; where it must be asked, also for those `beside` it."""
        if self.is_dirty:
            await self.load_counts(field, [value])
        elif (field, value) not in self._counts:
            await self.load_counts(field, [value, *beside])
        return self._counts[field, value]

    async def load_counts(self, field: str, values: Sequence[Any]) -> None:
        """Count for many values in one statement."""
        if self.is_dirty:
            await self._flush()
        self._counts |= {(field, value): 0 for value in values}
        for part in rows_sql.parts(values, 1):
            counting = rows_sql.count_rows(self._entity, field, rows_sql.size_for(len(part)))
            counted = await self._session.execute(counting, rows_sql.given([part]))
            self._counts |= {(field, value): number for value, number in counted}

    def create(self, values: dict[str, Any]) -> Record:
        """A new row; it has an id once it is flushed."""
        record = Record(self._entity, values, pending=True)
        self._new.append(record)
        self._ours.add(record)
        for field in self._known:
            self._give(field, values.get(field), record)
        return record

    def change(self, record: Record, values: Mapping[str, Any]) -> None:
        """Give some columns other values."""
        for field in self._known:
            if field in values:
                self._free(record, field)
                self._give(field, values[field], record)
        record.pending = True
        self._changed.setdefault(record, {}).update(values)

    def delete(self, record: Record) -> None:
        """Remove a row."""
        for field in self._known:
            self._free(record, field)
        record.pending = True
        self._gone.append(record)

    def own_ids(self) -> Iterator[Any]:
        """Of the rows that this transaction has locked or made."""
        return (record.id for record in self._ours if record.id is not None)

    @property
    def is_dirty(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._new or self._changed or self._gone)

    async def insert(self) -> None:
        """Write the new rows, and take what the database has made of them."""
        new, self._new = self._new, []
        for names, records in _alike((record, record.values) for record in new):
            for part in rows_sql.parts(records, len(names)):
                statement = rows_sql.insert_rows(self._entity, names, rows_sql.size_for(len(part)))
                columns = [[record.values[name] for record in part] for name in names]
                stored = self._whole(await self._write(statement, columns))
                paired = pair([record.values for record in part], stored, self._entity.keys)
                for record, values in zip(part, paired, strict=True):
                    self._store(record, record.values, values)

    async def update(self) -> None:
        """Write what has changed in rows that there were."""
        changed, self._changed = self._changed, {}
        for names, records in _alike((each, sorted(names)) for each, names in changed.items()):
            for part in rows_sql.parts(records, 1 + len(names)):
                statement = rows_sql.update_rows(self._entity, names, rows_sql.size_for(len(part)))
                columns = [[changed[record][name] for record in part] for name in names]
                ids = [record.id for record in part]
                stored = self._whole(await self._write(statement, [ids, *columns]))
                by_id = {values["id"]: values for values in stored}
                _check(ids, by_id)
                for record in part:
                    self._store(record, changed[record], by_id[record.id])

    async def remove(self) -> None:
        """Delete the rows that are gone."""
        gone, self._gone = self._gone, []
        for part in rows_sql.parts(gone, 1):
            statement = rows_sql.delete_rows(self._entity, rows_sql.size_for(len(part)))
            ids = [record.id for record in part]
            _check(ids, [id_ for (id_,) in await self._write(statement, [ids])])
            for record in part:
                record.pending = False
                self._by_id.pop(record.id, None)

    async def _write(
        self, statement: Executable, columns: Sequence[Sequence[Any]]
    ) -> Sequence[Sequence[Any]]:
        """Write rows; return what comes back of them, which must be as many."""
        found = (await self._session.execute(statement, rows_sql.given(columns))).all()
        if len(found) != len(columns[0]):
            raise NotWritten(f"{len(found)} of {len(columns[0])} {self._entity.name} rows")
        return found

    def _whole(self, rows: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        names = self._entity.columns
        return [dict(zip(names, row, strict=True)) for row in rows]

    def flushed(self) -> None:
        """The database has been told everything."""
        self._freed.clear()
        self._counts.clear()

    def _store(self, record: Record, given: Mapping[str, Any], stored: dict[str, Any]) -> None:
        """Take what the database has made of a row that was written."""
        before, record.values, record.pending = record.values, stored, False
        self._by_id[stored["id"]] = record
        for field, known in self._known.items():
            if field not in given and field not in before:
                self._written[field] += 1  # a value that the database has made
            elif given.get(field, before.get(field)) != stored[field]:
                # It has made another value of it: whose any of them is must be asked anew.
                known.clear()

    def _learn(self, values: dict[str, Any]) -> Record:
        """Take what the database said of a row in place of what was known of it."""
        record = self._by_id.get(values["id"])
        if record is None:
            record = self._by_id[values["id"]] = Record(self._entity, values)
        elif record.values != values:
            for field in self._known:
                if record.values[field] != values[field]:
                    self._forget(record, field)
            record.values = values
        return record

    def _know(self, field: str, value: Any, record: Record) -> None:
        if value is not None:
            self._known[field][value] = record
            record.known_by.append((field, value))

    def _give(self, field: str, value: Any, record: Record) -> None:
        if value is not None:
            self._know(field, value, record)
            self._written[field] += 1

    def _free(self, record: Record, field: str) -> None:
        """The row is gone, or is about to have another value."""
        for value in self._forget(record, field):
            self._freed.add((field, value))

    def _forget(self, record: Record, field: str) -> list[Any]:
        """The row no longer has what it was known by; return that."""
        known = self._known[field]
        its = [value for name, value in record.known_by if name == field]
        for value in its:
            if known.get(value) is record:
                known[value] = self._written[field]
        record.known_by = [each for each in record.known_by if each[0] != field]
        return its


def _check(ids: Sequence[Any], written: Collection[Any]) -> None:
    if set(ids) != set(written):
        raise NotWritten("other rows than those with the ids given")


def _alike(
    records: Iterable[tuple[Record, Iterable[str]]],
) -> Iterable[tuple[tuple[str, ...], list[Record]]]:
    """The records by the columns that are to be written."""
    alike = defaultdict(list)
    for record, names in records:
        alike[tuple(names)].append(record)
    return alike.items()
