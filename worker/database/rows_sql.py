"""Statements for many rows of one table at once, whatever their number.

Values travel as arrays, one for each column. So the text of a statement is the same for every size
of group: SQLAlchemy compiles it once, PostgreSQL parses it once, and a hundred rows cost little
more than one. (The ORM's unit of work takes about 100 µs a row for the same.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Column,
    Delete,
    Insert,
    Select,
    Table,
    TableValuedAlias,
    Text,
    Update,
    any_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)


def given(values: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The parameters of these statements: for each column the values that it is given."""
    return {f"given_{name}": of_column for name, of_column in values.items()}


@cache
def find_rows(
    table: Table, fields: tuple[str, ...], ignore_case: frozenset[str], *, lock: bool
) -> Select[Any]:
    """The rows in which any of the unique fields has one of the values given for it.

    Locked rows are locked in the order of their ids, so that groups do not deadlock.
    """
    query = select(table).where(
        or_(*(_is_given(table.c[field], fold=field in ignore_case) for field in fields))
    )
    return query.order_by(table.c.id).with_for_update() if lock else query


def _is_given(column: Column[Any], *, fold: bool) -> Any:
    if not fold:
        return column == any_(_array(column))
    # The server folds both sides, so that its rules of letters apply and its index is used.
    given = func.unnest(bindparam(f"given_{column.key}", type_=ARRAY(Text))).column_valued("given")
    return func.lower(column) == any_(func.array(select(func.lower(given)).scalar_subquery()))


@cache
def insert_rows(table: Table, names: tuple[str, ...]) -> Insert:
    """Insert rows with these columns; returns `id` and what the server filled in.

    The rows are inserted in the order given, so ascending ids are in that order, too: PostgreSQL
    takes a value from a sequence as it inserts each row of a sorted SELECT.
    """
    rows = _rows(table, names, with_ordinality="position")
    in_order = select(*(rows.c[name] for name in names)).order_by(rows.c.position)
    filled_in = [column for column in table.c if column.key not in names]
    statement = insert(table).from_select(list(names), in_order, include_defaults=False)
    return statement.returning(*filled_in)


@cache
def update_rows(table: Table, names: tuple[str, ...]) -> Update:
    """Set these columns of the rows with the given ids."""
    rows = _rows(table, ("id", *names))
    # The second condition is there for its index: a join could be planned to read the table.
    are_given = (table.c.id == rows.c.id, table.c.id == any_(_array(table.c.id)))
    return update(table).where(*are_given).values({name: rows.c[name] for name in names})


@cache
def delete_rows(table: Table) -> Delete:
    """Delete the rows with the given ids."""
    return delete(table).where(table.c.id == any_(_array(table.c.id)))


@cache
def count_rows(table: Table, field: str) -> Select[Any]:
    """How many rows have each of the given values."""
    column = table.c[field]
    return select(column, func.count()).where(column == any_(_array(column))).group_by(column)


def _rows(table: Table, names: Sequence[str], **options: Any) -> TableValuedAlias:
    """The given values as rows of a table."""
    arrays = func.unnest(*(_array(table.c[name]) for name in names))
    return arrays.table_valued(*names, name="given", **options).render_derived()


def _array(column: Column[Any]) -> Any:
    return bindparam(f"given_{column.key}", type_=ARRAY(column.type))
