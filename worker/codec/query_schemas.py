"""JSON Schemas of queries, out of the same description that they are checked by."""

from __future__ import annotations

from typing import Any

from worker.codec.query_parser import MAX_LIMIT
from worker.codec.where_parser import MAX_VALUES, QUANTIFIERS
from worker.core.queries import Operator
from worker.core.query_schema import TEXT, Field, QuerySchema, QuerySchemas
from worker.core.registry import Registry

Schema = dict[str, Any]


def query_data(registry: Registry, entity: str, verb: str) -> tuple[Schema, dict[str, Schema]]:
    """The schema of a query's `data`, and the definitions that it refers to."""
    schemas = QuerySchemas(registry)
    schema = schemas[entity]
    members: dict[str, Schema] = {
        "fields": _names(schema.fields),
        "include": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }
    if verb == "get":
        return _object(members), {}
    sortable = [name for name, field in schema.fields.items() if field.is_sortable]
    members |= {
        "where": {"$ref": f"#/$defs/{entity}.where"},
        "order_by": _names([*sortable, *(f"-{name}" for name in sortable)]),
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT},
        "after": {"type": "string"},
        "aggregate": _aggregate(schema),
        "group_by": _names(sortable),
    }
    definitions: dict[str, Schema] = {}
    _define_where(schemas, entity, definitions)
    return _object(members), definitions


def _define_where(schemas: QuerySchemas, entity: str, definitions: dict[str, Schema]) -> None:
    """Define the filters of an entity, and of all that its relations lead to."""
    name, schema = f"{entity}.where", schemas[entity]
    if name in definitions:
        return
    this = {"$ref": f"#/$defs/{name}"}
    members: dict[str, Schema] = {
        "and": {"type": "array", "items": this},
        "or": {"type": "array", "items": this},
        "not": this,
    }
    definitions[name] = _object(members)
    for field in schema.fields.values():
        members[field.name] = _condition(field)
    for relation in schema.relations.values():
        other = {"$ref": f"#/$defs/{relation.entity}.where"}
        several = {**_object(dict.fromkeys(QUANTIFIERS, other)), "minProperties": 1}
        members[relation.name] = several if relation.many else other
        _define_where(schemas, relation.entity, definitions)
    # The whole filter may also say that all are meant.
    definitions[name] = {
        "anyOf": [_object(members), _object({"all": {"const": True}}) | {"required": ["all"]}]
    }


def _condition(field: Field) -> Schema:
    value = {} if field.adapter is None else field.adapter.json_schema()
    operators: dict[str, Schema] = {name: _operand(name, value) for name in sorted(field.operators)}
    by_operator = {**_object(operators), "minProperties": 1}
    if field.adapter is None or field.is_compound:
        return by_operator
    return {"anyOf": [value, by_operator]}


def _operand(operator: Operator, value: Schema) -> Schema:
    if operator == "is_null":
        return {"type": "boolean"}
    if operator in ("in", "not_in"):
        return {"type": "array", "items": value, "maxItems": MAX_VALUES}
    return {"type": "string"} if operator in TEXT else value


def _aggregate(schema: QuerySchema) -> Schema:
    numbers = [name for name, field in schema.fields.items() if field.is_number]
    measured = [name for name, field in schema.fields.items() if field.is_measured]
    functions = {
        **dict.fromkeys(("avg", "sum"), _names(numbers)),
        **dict.fromkeys(("max", "min"), _names(measured)),
    }
    return {**_object({"count": {"const": True}, **functions}), "minProperties": 1}


def _names(names: Any) -> Schema:
    items = {"type": "string", "enum": list(names)}
    return {"type": "array", "items": items, "minItems": 1, "uniqueItems": True}


def _object(members: dict[str, Schema]) -> Schema:
    return {"type": "object", "properties": members, "additionalProperties": False}
