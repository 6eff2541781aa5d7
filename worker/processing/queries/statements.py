"""The SELECT of each kind of query, and the order that its pages follow."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Double, Integer, Select, UnaryExpression, and_, cast, func, or_, select
from sqlalchemy.orm import aliased

from worker.core.messages import Target
from worker.core.queries import EVERYTHING, Compare, OrderBy, Page
from worker.core.query_schema import Field, QuerySchema, QuerySchemas
from worker.processing.queries.where import (
    Expression,
    Predicate,
    WhereCompiler,
    bound,
    compared,
    compared_value,
)

Statement = Select[Any]


class Statements:
    """Builds the statements of all entities."""

    def __init__(self, schemas: QuerySchemas) -> None:
        self._where = WhereCompiler(schemas)

    def row(self, schema: QuerySchema, target: Target, columns: Sequence[str]) -> Statement:
        """The row with this unique value."""
        model = schema.entity.model
        # A key is a key, even one that queries may not filter by.
        field = schema.keys[target.field]
        is_it = compared(Compare(target.field, "eq", target.value), field, model)
        return select(*(getattr(model, name) for name in columns)).where(is_it)

    def rows(self, schema: QuerySchema, page: Page, columns: Sequence[str]) -> Statement:
        """One row more than the page holds, to know whether another follows."""
        model = schema.entity.model
        found = select(*(getattr(model, name) for name in columns))
        return self._paged(found, schema, page)

    def groups(self, schema: QuerySchema, page: Page) -> Statement:
        """The columns of the groups, then the count, then each function, as they were asked for."""
        assert page.aggregate is not None
        model = schema.entity.model
        keys = [compared_value(schema.fields[name], model) for name in page.aggregate.group_by]
        results: list[Expression] = [func.count()] if page.aggregate.count else []
        for function, name in page.aggregate.functions:
            results.append(_function(function, schema.fields[name], getattr(model, name)))
        labelled = [each.label(f"column_{n}") for n, each in enumerate((*keys, *results))]
        found = select(*labelled).select_from(model)
        if not keys:
            return self._filtered(found, schema, page)
        return self._paged(found.group_by(*keys), schema, page)

    def _paged(self, found: Statement, schema: QuerySchema, page: Page) -> Statement:
        model = schema.entity.model
        found = self._filtered(found, schema, page)
        if page.after is not None:
            found = found.where(_beyond(schema, page.order, page.after))
        steps = [_ordered(schema.fields[step.field], step, model) for step in page.order]
        return found.order_by(*steps).limit(page.limit + 1)

    def _filtered(self, found: Statement, schema: QuerySchema, page: Page) -> Statement:
        if page.where == EVERYTHING:
            return found
        return found.where(self._where.compile(page.where, schema, schema.entity.model))


def related(
    schema: QuerySchema, relation: str, target: QuerySchema, ids: Sequence[int], columns: Any
) -> Statement:
    """The rows that the relation leads to from these rows: the id of each one's, then its columns.

    One statement for all, whatever the relation is made of.
    """
    owner, row = aliased(schema.entity.model), aliased(target.entity.model)
    return (
        select(owner.id.label("owner"), *(getattr(row, name) for name in columns))
        .join(getattr(owner, relation).of_type(row))
        .where(owner.id.in_(ids))
        .order_by(row.id)
    )


def plain(function: str, field: Field, value: Any) -> Any:
    """What a function came to, as the field's own values are: whole sums of whole numbers."""
    if function == "sum" and field.python_type is int and isinstance(value, Decimal):
        return int(value)
    return value


def _function(function: str, field: Field, column: Any) -> Expression:
    if function == "avg" and isinstance(field.column.type, Integer):
        column = cast(column, Double)
    computed: Expression = getattr(func, function)(column)
    return computed


def _ordered(field: Field, step: OrderBy, source: Any) -> UnaryExpression[Any]:
    column = compared_value(field, source)
    ordered = column.desc() if step.descending else column.asc()
    # Only where there may be nulls: an index is in no other order.
    return ordered.nulls_last() if field.column.nullable else ordered


def _beyond(schema: QuerySchema, order: Sequence[OrderBy], position: Sequence[Any]) -> Predicate:
    """The rows that come after the position."""
    step, value = order[0], position[0]
    field, model = schema.fields[step.field], schema.entity.model
    column, is_null = compared_value(field, model), getattr(model, field.name).is_(None)
    rest = _beyond(schema, order[1:], position[1:]) if len(order) > 1 else None
    if value is None:  # nulls are last: what follows is among them
        return is_null if rest is None else and_(is_null, rest)
    here = bound(field, value)
    beyond = [column < here if step.descending else column > here]
    if field.column.nullable:
        beyond.append(is_null)
    if rest is not None:
        beyond.append(and_(column == here, rest))
    return or_(*beyond)
