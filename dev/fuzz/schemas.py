"""Hypothesis strategies out of JSON Schemas, as far as `worker schema` uses these.

hypothesis-jsonschema 0.23 of 2024 does the same for all of JSON Schema, but calls what Hypothesis
no longer has.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st
from jsonschema import Draft202012Validator

Schema = dict[str, Any]
Strategy = st.SearchStrategy[Any]

_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)


def fitting(schema: Schema) -> Strategy:
    """Documents that fit the schema."""
    validator = Draft202012Validator(schema)
    return _of(schema, schema.get("$defs", {})).filter(validator.is_valid)


@st.composite
def nearly_fitting(draw: st.DrawFn, schema: Schema) -> Any:
    """Documents that fit but for a member or two: replaced, gone, or one too many."""
    document = copy.deepcopy(draw(fitting(schema)))
    for _ in range(draw(st.integers(1, 2))):
        places = [place for place in _objects(document) if place]
        if not places:
            break
        place = draw(st.sampled_from(places))
        name = draw(st.sampled_from(sorted(place)))
        match draw(st.sampled_from(("replace", "remove", "add"))):
            case "replace":
                place[name] = draw(_ANY)
            case "remove":
                del place[name]
            case _:
                place[draw(st.text(max_size=20))] = draw(_ANY)
    return document


def _objects(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict) else []
    return found + [place for item in inner for place in _objects(item)]


def _of(schema: Schema, definitions: Schema) -> Strategy:
    """What fits at least the structural keywords; the validator sees to the others."""
    if "$ref" in schema:
        return _of(
            definitions[schema["$ref"].removeprefix("#/$defs/")] | _rest(schema), definitions
        )
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "type" not in schema:
        choices = schema.get("anyOf") or schema.get("oneOf")
        return st.one_of(*(_of(choice, definitions) for choice in choices)) if choices else _ANY
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of(*(_typed(kind, schema, definitions) for kind in kinds))


def _rest(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "$ref"}


def _typed(kind: str, schema: Schema, definitions: Schema) -> Strategy:
    match kind:
        case "null":
            return st.none()
        case "boolean":
            return st.booleans()
        case "integer":
            least, most = schema.get("minimum"), schema.get("maximum")
            return st.integers(least, 30) | st.integers(least, most)
        case "number":
            return st.floats(allow_nan=False, allow_infinity=False) | st.integers()
        case "string":
            return _string(schema)
        case "object":
            return _object(schema, definitions)
    raise NotImplementedError(f"the schemas have a new type, {kind}: teach it to {__name__}")


def _string(schema: Schema) -> Strategy:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    # Most are what will do for a name as for an address, and few of these, so that commands meet.
    usual = st.integers(0, 20).map(lambda number: f"u{number}@example.com")
    texts = st.text(min_size=least, max_size=min(most or 60, 300))
    return st.one_of(usual, usual, usual, texts)


def _object(schema: Schema, definitions: Schema) -> Strategy:
    required = frozenset(schema.get("required", ()))
    members = {
        name: _of(member, definitions) for name, member in schema.get("properties", {}).items()
    }
    if not members:
        return st.just({})
    # Rules such as "one of these two, not both" look at the names alone.
    rules = Draft202012Validator({"allOf": schema.get("allOf", [])})
    names = st.sets(
        st.sampled_from(sorted(members)),
        min_size=schema.get("minProperties", 0),
        max_size=schema.get("maxProperties"),
    ).filter(lambda chosen: rules.is_valid(dict.fromkeys(required | chosen)))
    return names.flatmap(
        lambda chosen: st.fixed_dictionaries(
            {name: members[name] for name in sorted(required | chosen)}
        )
    )
