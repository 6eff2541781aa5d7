"""One statement that inserts a row and the ledger's entry for it, and commits both by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    insert,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.core.registry import Entity
from worker.database.ledger import Entry, columns_of, entry_table


async def insert_and_record(
    connection: AsyncConnection,
    entity: Entity,
    values: Mapping[str, Any],
    entry: Entry,
    id_to_come: int,
) -> int | None:
    """Insert a row with these values of all columns but its id; return the id that it was given.

    `id_to_come` stands for that id in the entry's event. Raises `IntegrityError`, with nothing
    written, where a constraint is violated, the entry is there already, or the row as it is stored
    is not the one that was given. Returns `None` where the database passed it over.
    """
    statement = _statement(entity, tuple(values))
    given = {f"value_{place}": value for place, value in enumerate(values.values())}
    own = {**columns_of(entry), "id_to_come": str(id_to_come)}
    id_: int | None = (await connection.execute(statement, given | own)).scalar_one_or_none()
    return id_


@lru_cache(1_024)
def _statement(entity: Entity, names: tuple[str, ...]) -> Select[Any]:
    given = {
        entity.fields[name]: bindparam(f"value_{place}", type_=entity.fields[name].type)
        for place, name in enumerate(names)
    }
    stored = entity.fields.values()
    row = insert(entity.table).values(given).returning(*stored).cte("row")
    is_as_given = and_(*(_is_same(row.c[column.key], value) for column, value in given.items()))
    own: dict[str, ColumnElement[Any]] = {
        name: bindparam(name, type_=column.type) for name, column in entry_table().items()
    }
    # No digest: then the entry violates a constraint, and the row goes with it.
    own["digest"] = case((is_as_given, own["digest"]))
    id_ = cast(row.c[entity.fields["id"].key], Text)
    own["event_body"] = func.replace(own["event_body"], bindparam("id_to_come", type_=Text), id_)
    columns = [entry_table()[name] for name in own]
    entry = insert(columns[0].table).from_select(columns, select(*own.values()).select_from(row))
    return select(row.c[entity.fields["id"].key]).add_cte(entry.cte("entry"))


def _is_same(stored: ColumnElement[Any], given: ColumnElement[Any]) -> ColumnElement[bool]:
    if isinstance(stored.type, String):
        # To the letter, whatever the column's collation takes for equal.
        return cast(stored, Text).collate("C").is_not_distinct_from(cast(given, Text))
    return stored.is_not_distinct_from(given)
