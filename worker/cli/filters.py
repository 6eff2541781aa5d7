"""Conditions of the command line as a `where`: `username=ann`, `rating:gte=4`, `user.id=42`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from worker.cli.terminal import Misused
from worker.cli.values import parse

if TYPE_CHECKING:
    from worker.core.query_schema import QuerySchema, QuerySchemas

_ANY: frozenset[str] = frozenset()
_TEXT = frozenset({"string"})


def where_of(schemas: QuerySchemas, entity: str, conditions: Iterable[str]) -> dict[str, Any]:
    """The `where` that all of the conditions come to; what is wrong with it the codec says."""
    parts = [_condition(schemas, entity, condition) for condition in conditions]
    return parts[0] if len(parts) == 1 else {"and": parts}


def _condition(schemas: QuerySchemas, entity: str, condition: str) -> dict[str, Any]:
    name, equals, text = condition.partition("=")
    path, colon, operator = name.partition(":")
    steps = path.split(".")
    if not equals or not all(steps) or (colon and not operator):
        raise Misused(f"{condition!r} is not of the form field=value or field:operator=value")
    value = _value(_schema_at(schemas, entity, steps[:-1]), steps[-1], operator or "eq", text)
    found: Any = {operator or "eq": value}
    for step in reversed(steps):
        found = {step: found}
    return dict(found)


def _schema_at(schemas: QuerySchemas, entity: str, steps: list[str]) -> QuerySchema:
    schema = schemas[entity]
    for step in steps:
        if step in schema.relations:
            schema = schemas[schema.relations[step].entity]
    return schema


def _value(schema: QuerySchema, name: str, operator: str, text: str) -> Any:
    field = schema.fields.get(name)
    numeric = field is not None and (field.is_number or field.is_compound)
    boolean = operator == "is_null" or (field is not None and field.python_type is bool)
    types = _ANY if numeric or boolean else _TEXT
    if operator in ("in", "not_in"):
        return [parse(part, types) for part in text.split(",")] if text else []
    return parse(text, types)
