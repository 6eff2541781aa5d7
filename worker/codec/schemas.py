"""JSON Schemas of whole commands, out of the registry's payload models.

They say what the worker says, as far as JSON Schema can, in words that Ajv's strict mode takes,
too: a type beside what is said of it, and properties beside what is required of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from worker.codec.parser import CLOUDEVENTS_MEMBERS, MAX_VERSION, OUR_MEMBERS
from worker.codec.query_schemas import query_data
from worker.core.json_values import FORMS
from worker.core.registry import Entity, Registry, Verb
from worker.core.text import CONTROL, UNSTORABLE

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Says what pydantic takes for granted."""

    def str_schema(self, schema: core_schema.StringSchema) -> JsonSchemaValue:
        """No text that cannot be stored."""
        return super().str_schema(schema) | _storable()

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """No number that a double cannot hold."""
        largest = sys.float_info.max
        return {"minimum": -largest, "maximum": largest} | super().float_schema(schema)

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        """By a pattern: Ajv's strict mode knows no `format` unless it is taught to."""
        type_ = schema["type"]
        if type_ == "datetime" and schema.get("tz_constraint") == "naive":
            type_ = "naive datetime"
        if type_ in FORMS and type_ != "decimal":
            return _form(type_)
        return super().generate_inner(schema)

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """A number, or the same as text where more digits count than readers of numbers keep."""
        number, text = super().decimal_schema(schema)["anyOf"]
        return {"anyOf": [number, text | _form("decimal")]}


def _without(characters: str) -> Schema:
    return {"not": {"type": "string", "pattern": f"[{characters}]"}}


def _form(name: str) -> Schema:
    # Without the last condition, `$` would take a line feed for the end in some languages.
    pattern, called = FORMS[name]
    return {"type": "string", "description": called, "pattern": rf"^(?:{pattern})$(?!\n)"}


def _storable() -> Schema:
    return _without(UNSTORABLE)


def schema_of(registry: Registry, type_: str) -> Schema:
    """The schema of one type of command, or of query. The type must exist."""
    if (query := registry.find_query(type_)) is not None:
        return _query(registry, *query)
    models = _Models([_found(registry, type_)])
    return {"$schema": DIALECT, **_command(registry, type_, models), "$defs": models.definitions}


def schema_of_all(registry: Registry) -> Schema:
    """One schema that fits every command; its definitions hold each type's under its name."""
    models = _Models([_found(registry, type_) for type_ in registry.types])
    commands = {type_: _command(registry, type_, models) for type_ in registry.types}
    return {
        "$schema": DIALECT,
        "title": "command",
        "oneOf": [{"$ref": f"#/$defs/{type_}"} for type_ in commands],
        "$defs": commands | models.definitions,
    }


def _query(registry: Registry, entity: Entity, verb: str) -> Schema:
    data, definitions = query_data(registry, entity.name, verb)
    properties: Schema = {
        "type": {"const": f"{entity.name}.{verb}"},
        "id": _ID,
        "data": {"anyOf": [data, _NULL]},
    }
    required = ["type"]
    if verb == "get":
        models = _Models([(entity, Verb(_nothing))])
        properties["target"] = models.reference(entity.target)
        definitions = definitions | models.definitions
        required.append("target")
    return {
        "$schema": DIALECT,
        "title": f"{entity.name}.{verb}",
        "type": "object",
        "properties": properties,
        "required": required,
        "$defs": definitions,
    }


async def _nothing(session: Any, command: Any) -> Any:
    """A query has no handler."""


class _Models:
    """The payload models of some verbs: a reference to each, and what they define."""

    def __init__(self, verbs: Sequence[tuple[Entity, Verb]]) -> None:
        models: dict[type[BaseModel], None] = {}  # a set that keeps its order
        for entity, verb in verbs:
            if verb.payload is not None:
                models[verb.payload] = None
            if verb.targeted:
                models[entity.target] = None
        # Together, so that two models with the same name get different ones.
        self._references, schema = models_json_schema(
            [(model, "validation") for model in models],
            ref_template="#/$defs/{model}",
            schema_generator=_Generator,
        )
        self.definitions: Schema = schema.get("$defs", {})
        for _, verb in verbs:
            if verb.targeted and verb.payload is not None:
                self._drop_defaults(verb.payload)

    def _drop_defaults(self, model: type[BaseModel]) -> None:
        """Of an update only what is given counts: what fills defaults in would change rows."""
        name = self._references[model, "validation"]["$ref"].removeprefix("#/$defs/")
        for schema in self.definitions[name].get("properties", {}).values():
            schema.pop("default", None)

    def reference(self, model: type[BaseModel]) -> Schema:
        return dict(self._references[model, "validation"])


def _found(registry: Registry, type_: str) -> tuple[Entity, Verb]:
    found = registry.find(type_)
    assert found is not None
    entity, verb = found
    return entity, entity.verbs[verb]


def _command(registry: Registry, type_: str, models: _Models) -> Schema:
    entity, verb = _found(registry, type_)
    required = ["type"]
    if verb.targeted:
        required.append("target")
    if verb.payload is not None:
        required.append("data")
    return {
        "title": type_,
        "type": "object",
        "not": {
            "properties": {name: {"not": _NULL} for name in _VERSIONS},
            "required": list(_VERSIONS),
        },
        "properties": {
            "type": {"const": type_},
            "id": _ID,
            "key": _KEY,
            "target": models.reference(entity.target) if verb.targeted else _NULL,
            "data": _EMPTY if verb.payload is None else _data(entity, verb, models),
        }
        | dict.fromkeys(_VERSIONS, _VERSION if verb.targeted else _NULL),
        "required": required,
        "propertyNames": _storable(),
        # A null member is an absent one, and a CloudEvent may carry extensions.
        "if": {
            "properties": {"specversion": {"not": {"type": "null"}}},
            "required": ["specversion"],
        },
        "then": {
            "patternProperties": {_EXTENSION: _storable(), "^expected_version$": True},
            "additionalProperties": _NULL,
        },
        "else": {
            "properties": dict.fromkeys(sorted(CLOUDEVENTS_MEMBERS), _storable())
            | dict.fromkeys(sorted({*OUR_MEMBERS, *_VERSIONS}), True),
            "additionalProperties": _NULL,
        },
    }


def _data(entity: Entity, verb: Verb, models: _Models) -> Schema:
    assert verb.payload is not None
    schema = models.reference(verb.payload) | {"type": "object"}
    if verb.targeted:
        schema["minProperties"] = 1
    rules = [
        _either(entity, verb, reference.field, reference.name)
        for reference in entity.references
        if {reference.field, reference.name} <= verb.payload.model_fields.keys()
    ]
    return schema | {"allOf": rules} if rules else schema


def _either(entity: Entity, verb: Verb, field: str, name: str) -> Schema:
    """Another row is named by its id or by a key, not by both; a new row that needs it names it."""
    both = [{"properties": {each: True}, "required": [each]} for each in (field, name)]
    needed = not verb.targeted and not entity.model.__table__.columns[field].nullable
    rule: Schema = {"oneOf": both} if needed else {"not": {"allOf": both}}
    return {"type": "object"} | rule


_VERSIONS = ("expected_version", "expectedversion")

# Without the last condition, `$` would take a line feed for the end in some languages.
_EXTENSION = r"^[a-z0-9]{1,40}$(?!\n)"
_ID: Schema = {
    "description": "The command's identity, for exactly one effect; it may stand in the AMQP "
    "property message_id instead.",
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": 200,
} | _without(CONTROL + UNSTORABLE)
_KEY: Schema = {
    "description": "Commands with the same key take effect in order.",
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": 1000,
} | _storable()
_VERSION: Schema = {
    "description": "Refuse unless the row is at this version.",
    "type": ["integer", "null"],
    "minimum": 1,
    "maximum": MAX_VERSION,
}
_NULL: Schema = {"type": "null"}
_EMPTY: Schema = {"type": ["object", "null"], "maxProperties": 0}
