"""JSON Schemas of whole commands, out of the registry's payload models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from worker.codec.parser import CLOUDEVENTS_MEMBERS, MAX_VERSION, OUR_MEMBERS
from worker.core.registry import Entity, Registry, Verb

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]


def schema_of(registry: Registry, type_: str) -> Schema:
    """The schema of one type of command. The type must exist."""
    models = _Models([_found(registry, type_)])
    return {"$schema": DIALECT, **_command(registry, type_, models), "$defs": models.definitions}


def schema_of_all(registry: Registry) -> Schema:
    """One schema that fits every command; its definitions hold each type's under its name."""
    models = _Models(_found(registry, type_) for type_ in registry.types)
    commands = {type_: _command(registry, type_, models) for type_ in registry.types}
    return {
        "$schema": DIALECT,
        "title": "command",
        "oneOf": [{"$ref": f"#/$defs/{type_}"} for type_ in commands],
        "$defs": commands | models.definitions,
    }


class _Models:
    """The payload models of some verbs: a reference to each, and what they define."""

    def __init__(self, verbs: Iterable[tuple[Entity, Verb]]) -> None:
        models: dict[type[BaseModel], None] = {}  # a set that keeps its order
        for entity, verb in verbs:
            if verb.payload is not None:
                models[verb.payload] = None
            if verb.targeted:
                models[entity.target] = None
        # Together, so that two models with the same name get different ones.
        self._references, schema = models_json_schema(
            [(model, "validation") for model in models], ref_template="#/$defs/{model}"
        )
        self.definitions: Schema = schema.get("$defs", {})

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
    known = sorted(OUR_MEMBERS | CLOUDEVENTS_MEMBERS | {"expectedversion"})
    return {
        "title": type_,
        "type": "object",
        "properties": {
            "type": {"const": type_},
            "id": _ID,
            "key": _KEY,
            "target": models.reference(entity.target) if verb.targeted else _NULL,
            "data": _EMPTY if verb.payload is None else _data(entity, verb, models),
            "expected_version": _VERSION if verb.targeted else _NULL,
            "expectedversion": _VERSION if verb.targeted else _NULL,
        },
        "required": required,
        # A CloudEvent may carry extensions.
        "if": {"required": ["specversion"]},
        "then": {"propertyNames": {"anyOf": [{"enum": known}, {"pattern": "^[a-z0-9]{1,40}$"}]}},
        "else": {"propertyNames": {"enum": known}},
    }


def _data(entity: Entity, verb: Verb, models: _Models) -> Schema:
    assert verb.payload is not None
    schema = models.reference(verb.payload)
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
    both = [{"required": [field]}, {"required": [name]}]
    needed = not verb.targeted and not entity.model.__table__.columns[field].nullable
    return {"oneOf": both} if needed else {"not": {"allOf": both}}


_ID: Schema = {
    "description": "The command's identity, for exactly one effect; it may stand in the AMQP "
    "property message_id instead.",
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": 200,
}
_KEY: Schema = {
    "description": "Commands with the same key take effect in order.",
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": 1000,
}
_VERSION: Schema = {
    "description": "Refuse unless the row is at this version.",
    "type": ["integer", "null"],
    "minimum": 1,
    "maximum": MAX_VERSION,
}
_NULL: Schema = {"type": "null"}
_EMPTY: Schema = {"type": ["object", "null"], "maxProperties": 0}
