"""Statements for many rows of one entity at once, whatever their number.

The rows that are given stand in a VALUES list, each value bound by its column's own type; what
comes back is what the database then has. The number of rows in the list is a power of two, of which
only the first `count` are meant: so that a statement has few texts, and each is compiled, prepared
and planned once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from itertools import repeat
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    Insert,
    Integer,
    Select,
    Table,
    Update,
    Values,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningDelete
from sqlalchemy.sql.visitors import InternalTraversal

from worker.core.registry import Entity

T = TypeVar("T")

MAX_PARAMETERS = 30_000
"""In one statement; PostgreSQL and SQLite take 32,767, two others 65,535."""
MAX_ROWS = 256
"""In one statement: more do not make it cheaper."""
_COUNT = "__count"


def parts(rows: Sequence[T], width: int) -> Iterator[Sequence[T]]:
    """The rows, as many at a time as one statement takes, each of them so many values wide."""
    most = min(MAX_ROWS, 1 << (MAX_PARAMETERS // width).bit_length() - 1)
    return (rows[start : start + most] for start in range(0, len(rows), most))


def size_for(count: int) -> int:
    """The number of rows in the text of a statement for `count` of them."""
    return 1 << (count - 1).bit_length()


def given(columns: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """The parameters of a statement: for each column its values, the last one again to the end."""
    count = max(map(len, columns))
    size = size_for(count)
    parameters: dict[str, Any] = {_COUNT: count}
    for names, values in zip(_names(len(columns), size), columns, strict=True):
        parameters.update(zip(names, values, strict=False))
        parameters.update(zip(names[len(values) :], repeat(values[-1]), strict=False))
    return parameters


@cache
def _names(width: int, size: int) -> list[list[str]]:
    return [[_name(place, row) for row in range(size)] for place in range(width)]


def _name(place: int, row: int) -> str:
    return f"__given_{place}_{row}"  # no name of a column, which SQLAlchemy keeps for itself


@lru_cache(4_096)
def find_rows(entity: Entity, fields: tuple[str, ...], size: int, *, lock: bool) -> Select[Any]:
    """The rows in which one of the unique fields has one of the values given for it.

    Each comes with the place of the value in its list, and for each field whether it is that one's.
    Locked rows are locked in the order of their ids, so that groups do not deadlock.
    """
    rows = _Given(entity.table, [entity.fields[name] for name in fields], size)
    matches = [
        _same(entity.fields[name], given_, fold=name in entity.model.ignore_case)
        for name, given_ in zip(fields, rows.values, strict=True)
    ]
    query = select(rows.place, *entity.fields.values(), *matches)
    query = query.join_from(rows, entity.table, or_(*matches)).where(rows.are_meant)
    if not lock:
        return query
    return query.order_by(entity.fields["id"]).with_for_update(of=entity.table)


def _same(column_: Column[Any], value: ColumnElement[Any], *, fold: bool) -> ColumnElement[bool]:
    # The server folds both sides, so that its rules of letters apply and its index is used.
    return func.lower(column_) == func.lower(value) if fold else column_ == value


@lru_cache(4_096)
def insert_rows(entity: Entity, names: tuple[str, ...], size: int) -> Insert:
    """Insert rows with these columns; returns them as they are stored, in no particular order."""
    columns = [entity.fields[name] for name in names]
    rows = _Given(entity.table, columns, size)
    meant = select(*rows.values).where(rows.are_meant)
    return insert(entity.table).from_select(columns, meant).returning(*entity.fields.values())


@lru_cache(4_096)
def update_rows(entity: Entity, names: tuple[str, ...], size: int) -> Update:
    """Set these columns of the rows with the given ids; returns the rows that there were."""
    columns = [entity.fields[name] for name in names]
    rows = _Given(entity.table, [entity.fields["id"], *columns], size)
    id_, *values = rows.values
    return (
        update(entity.table)
        .where(entity.fields["id"] == id_, rows.are_meant)
        .values(dict(zip(columns, values, strict=True)))
        .returning(*entity.fields.values())
    )


@lru_cache(4_096)
def delete_rows(entity: Entity, size: int) -> ReturningDelete[Any]:
    """Delete the rows with the given ids; returns the ids of those that are gone."""
    id_ = entity.fields["id"]
    return delete(entity.table).where(id_.in_(_cells(id_, size))).returning(id_)


@lru_cache(4_096)
def count_rows(entity: Entity, field: str, size: int) -> Select[Any]:
    """How many rows have each of the given values."""
    column_ = entity.fields[field]
    wanted = column_.in_(_cells(column_, size))
    return select(column_, func.count()).where(wanted).group_by(column_)


class _Cell(BindParameter[Any]):
    """One given value."""

    inherit_cache = True


def _cells(column_: Column[Any], size: int) -> list[_Cell]:
    return [_Cell(_name(0, row), type_=column_.type) for row in range(size)]


@compiles(_Cell)
def _compile_cell(cell: _Cell, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.visit_bindparam(cell, **options))  # type: ignore[no-untyped-call]


@compiles(_Cell, "postgresql")
def _compile_typed_cell(cell: _Cell, compiler: SQLCompiler, **options: Any) -> str:
    """What stands in a list of VALUES is text to PostgreSQL, unless it is told otherwise."""
    value = _compile_cell(cell, compiler, **options)
    if cell.type._unwrapped_dialect_impl(compiler.dialect).render_bind_cast or cell.type._isnull:
        return value  # it says the type already
    return f"CAST({value} AS {compiler.dialect.type_compiler_instance.process(cell.type)})"


class _Given(Values):
    """A VALUES list of so many rows of parameters: their place in it, and their values.

    SQLAlchemy does not cache a statement with a VALUES list, since that holds the values
    themselves; this one holds none. It makes its cells as it is compiled, for the same reason:
    a cache would have to look at each of them.
    """

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - as in SQLAlchemy's own classes
        ("_column_args", InternalTraversal.dp_clauseelement_list),
        ("name", InternalTraversal.dp_string),
        ("size", InternalTraversal.dp_plain_obj),
    ]

    def __init__(self, table: Table, columns: Sequence[Column[Any]], size: int) -> None:
        values = (column(f"value_{place}", each.type) for place, each in enumerate(columns))
        super().__init__(column("place", Integer), *values, name=f"for_{table.name[:50]}")
        self.size = size

    @property
    def place(self) -> ColumnElement[int]:
        """Which of the rows it is, from 0."""
        return self.c.place

    @property
    def values(self) -> Sequence[ColumnElement[Any]]:
        """The columns of the values."""
        return list(self.c)[1:]

    @property
    def are_meant(self) -> ColumnElement[bool]:
        """Tells the rows that are given from those that only fill the list."""
        return self.c.place < bindparam(_COUNT, type_=Integer)

    @property
    def _data(self) -> Any:  # type: ignore[override]
        types = [each.type for each in self._column_args[1:]]
        return (
            [
                (
                    literal_column(str(row), Integer),
                    *(_Cell(_name(place, row), type_=each) for place, each in enumerate(types)),
                )
                for row in range(self.size)
            ],
        )
