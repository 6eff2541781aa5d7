"""Conditions as SQL expressions, of mapped columns and bound values alone: never of text.

Each expression is true or false, for nulls too, so what matches a condition and what matches its
`not` are together all rows. Relations are EXISTS: no row comes twice, none is missing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, and_, false, func, literal, null, or_, true
from sqlalchemy.orm import aliased

from worker.core.queries import And, Compare, Condition, Not, Or, Related
from worker.core.query_schema import Field, QuerySchema, QuerySchemas

Expression = ColumnElement[Any]
Predicate = ColumnElement[bool]

_ESCAPE = "/"


class WhereCompiler:
    """Compiles the conditions of a query, or of a change of many rows."""

    def __init__(self, schemas: QuerySchemas) -> None:
        self._schemas = schemas

    def compile(self, condition: Condition, schema: QuerySchema, source: Any) -> Predicate:
        """The condition about rows of `source`: the entity's mapped class, or an alias of it."""
        match condition:
            case Compare():
                return compared(condition, schema.fields[condition.field], source)
            case And(parts):
                return and_(true(), *(self.compile(part, schema, source) for part in parts))
            case Or(parts):
                return or_(false(), *(self.compile(part, schema, source) for part in parts))
            case Not(part):
                return self.compile(part, schema, source).is_not(true())
            case Related():
                return self._related(condition, schema, source)

    def _related(self, condition: Related, schema: QuerySchema, source: Any) -> Predicate:
        relation = schema.relations[condition.relation]
        target = self._schemas[relation.entity]
        # A name of its own on every level: a table may be met again further down.
        row = aliased(target.entity.model)
        inner = self.compile(condition.part, target, row)
        attribute = getattr(source, relation.name).of_type(row)
        exists: Predicate
        match condition.quantifier:
            case "one":
                exists = attribute.has(inner)
            case "some":
                exists = attribute.any(inner)
            case "none":
                exists = ~attribute.any(inner)
            case "every":
                exists = ~attribute.any(inner.is_not(true()))
        return exists


def compared_value(field: Field, source: Any) -> Expression:
    """The column in the form in which its values are compared."""
    column: Expression = getattr(source, field.name)
    return func.lower(column) if field.ignores_case else column


def bound(field: Field, value: Any) -> Expression:
    """A value as a parameter of the column's own type, in the same form."""
    parameter = literal(value, field.column.type)
    return func.lower(parameter) if field.ignores_case else parameter


def compared(condition: Compare, field: Field, source: Any) -> Predicate:
    """One comparison, which holds or does not."""
    column, operand = compared_value(field, source), condition.operand
    match condition.operator:
        case "is_null":
            is_null: Predicate = getattr(source, field.name).is_(null())
            return is_null if operand else is_null.is_not(true())
        case "in":
            return column.in_([bound(field, each) for each in operand]) if operand else false()
        case "not_in":
            # NOT IN is unknown for a null, which is in no list.
            is_in = Compare(condition.field, "in", operand)
            return compared(is_in, field, source).is_not(true()) if operand else true()
        case "contains" | "starts_with" | "ends_with":
            return _like(condition, field, column)
        case name:
            return _SIMPLE[name](column, bound(field, operand))


_SIMPLE: dict[str, Callable[[Expression, Expression], Predicate]] = {
    "eq": operator.eq,
    "ne": Expression.is_distinct_from,
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def _like(condition: Compare, field: Field, column: Expression) -> Predicate:
    escaped = condition.operand
    for special in (_ESCAPE, "%", "_"):
        escaped = escaped.replace(special, _ESCAPE + special)
    before = "" if condition.operator == "starts_with" else "%"
    after = "" if condition.operator == "ends_with" else "%"
    return column.like(bound(field, f"{before}{escaped}{after}"), escape=_ESCAPE)
