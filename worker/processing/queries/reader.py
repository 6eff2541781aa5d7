"""Reads what a query asks for in one read-only transaction: a SELECT, and one a relation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic_core import to_json
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.codec.cursor import write_cursor
from worker.core.errors import NotFound, Refusal
from worker.core.messages import Query
from worker.core.queries import Aggregate, Get, Include, Page
from worker.core.query_schema import QuerySchema, QuerySchemas
from worker.core.registry import Registry
from worker.processing.queries.statements import Statement, Statements, plain, related

MAX_PAGE_BYTES = 1_048_576
ROWS_AT_ONCE = 50
"""That are fetched before they are counted in bytes: so much beyond the page is in memory."""

Row = dict[str, Any]


class TooLarge(Refusal):
    """What would come along does not fit into one answer."""

    code: ClassVar[str] = "too_large"


class Reader:
    """Answers queries from an engine whose transactions are read-only."""

    def __init__(self, engine: AsyncEngine, registry: Registry) -> None:
        self._engine = engine
        self._schemas = QuerySchemas(registry)
        self._statements = Statements(self._schemas)

    async def read(self, query: Query, *, seconds: float | None = None) -> Row:
        """The data of the answer; raises a `Refusal` where there is none.

        `seconds` is the longest that a statement may run, if less than the settings say.
        """
        async with self._engine.connect() as connection:
            if seconds is not None:
                limit = f"{max(1, round(seconds * 1000))}ms"
                await connection.execute(select(func.set_config("statement_timeout", limit, True)))
            schema = self._schemas[query.entity]
            if isinstance(query.asked, Get):
                return await self._row(connection, schema, query.asked)
            if query.asked.aggregate is not None:
                return await self._groups(connection, schema, query.asked, query.asked.aggregate)
            return await self._page(connection, schema, query.asked)

    async def _row(self, connection: AsyncConnection, schema: QuerySchema, asked: Get) -> Row:
        columns = columns_of(asked)
        statement = self._statements.row(schema, asked.target, columns)
        found, _ = await _fetch(connection, statement, columns)
        if not found:
            target = asked.target
            raise NotFound(
                f"there is no {schema.entity.name} with {target.field} {target.value!r}",
                pointer="/target",
            )
        await self._include(connection, schema, found, asked.includes, _size(found))
        return _only(asked.fields, asked.includes, found[0])

    async def _page(self, connection: AsyncConnection, schema: QuerySchema, page: Page) -> Row:
        order, columns = [step.field for step in page.order], columns_of(page)
        statement = self._statements.rows(schema, page, columns)
        found, more = await _fetch(connection, statement, columns, limit=page.limit)
        await self._include(connection, schema, found, page.includes, _size(found))
        position = [found[-1][name] for name in order] if more else None
        return {
            "items": [_only(page.fields, page.includes, row) for row in found],
            "next": _cursor(schema, page, position),
        }

    async def _groups(
        self, connection: AsyncConnection, schema: QuerySchema, page: Page, aggregate: Aggregate
    ) -> Row:
        statement = self._statements.groups(schema, page)
        width = len(aggregate.group_by) + aggregate.count + len(aggregate.functions)
        numbers = [str(number) for number in range(width)]
        found, more = await _fetch(connection, statement, numbers, limit=page.limit)
        groups = [_group(schema, aggregate, list(row.values())) for row in found]
        if not aggregate.group_by:
            return {"aggregate": groups[0]}
        last = groups[-1]["group"] if more else {}
        position = [last[step.field] for step in page.order] if more else None
        return {"groups": groups, "next": _cursor(schema, page, position)}

    async def _include(
        self,
        connection: AsyncConnection,
        schema: QuerySchema,
        rows: Sequence[Row],
        includes: Sequence[Include],
        size: int,
    ) -> int:
        """Put the rows of each relation under its name; `size` is that of what is there, and is
        returned with theirs."""
        for include in includes:
            relation = schema.relations[include.relation]
            target = self._schemas[relation.entity]
            columns = list(target.fields)
            ids = list(dict.fromkeys(row["id"] for row in rows))
            found: list[Row] = []
            if ids:
                statement = related(schema, include.relation, target, ids, columns)
                names = ["", *columns]
                found, more = await _fetch(connection, statement, names, room=MAX_PAGE_BYTES - size)
                if more:
                    raise TooLarge(
                        f"with what is to be included the answer is larger than {MAX_PAGE_BYTES:,} "
                        "bytes: ask for fewer rows at a time (`limit`), or include less",
                        pointer="/data/include",
                    )
            size += _size(found)
            owned: dict[int, list[Row]] = defaultdict(list)
            for row in found:
                owned[row.pop("")].append(row)
            size = await self._include(connection, target, found, include.includes, size)
            for row in rows:
                theirs = owned[row["id"]]
                row[include.relation] = theirs if relation.many else next(iter(theirs), None)
        return size


def columns_of(asked: Get | Page) -> tuple[str, ...]:
    """What is read of a row: what is shown, and what tells rows apart and orders them."""
    order = [step.field for step in asked.order] if isinstance(asked, Page) else []
    return tuple(dict.fromkeys(("id", *asked.fields, *order)))


async def _fetch(
    connection: AsyncConnection,
    statement: Statement,
    names: Sequence[str],
    *,
    limit: int | None = None,
    room: int = MAX_PAGE_BYTES,
) -> tuple[list[Row], bool]:
    """The first rows, as many as there is room for, and whether there are more.

    One row there always is: else nobody would come past it.
    """
    rows: list[Row] = []
    options = {"yield_per": ROWS_AT_ONCE}
    async with connection.stream(statement, execution_options=options) as result:
        async for found in result:
            row = dict(zip(names, found, strict=True))
            room -= _size([row])
            if len(rows) == limit or (room < 0 and (rows or limit is None)):
                return rows, True
            rows.append(row)
    return rows, False


def _size(rows: Sequence[Row]) -> int:
    return sum(len(to_json(row)) + 1 for row in rows)


def _only(fields: Sequence[str], includes: Sequence[Include], row: Row) -> Row:
    return {name: row[name] for name in (*fields, *(it.relation for it in includes))}


def _group(schema: QuerySchema, aggregate: Aggregate, values: list[Any]) -> Row:
    keys = len(aggregate.group_by)
    group: Row = {}
    if keys:
        group["group"] = dict(zip(aggregate.group_by, values, strict=False))
    rest = iter(values[keys:])
    if aggregate.count:
        group["count"] = next(rest)
    for (function, name), value in zip(aggregate.functions, rest, strict=True):
        group.setdefault(function, {})[name] = plain(function, schema.fields[name], value)
    return group


def _cursor(schema: QuerySchema, page: Page, position: Sequence[Any] | None) -> str | None:
    if position is None:
        return None
    pairs = zip(page.order, position, strict=True)
    values = [
        None if value is None else schema.fields[step.field].write(value) for step, value in pairs
    ]
    return write_cursor(page.shape, values)
