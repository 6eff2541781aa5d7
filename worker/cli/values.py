"""Turns words of the command line into values: `rating=4.5`, `user.username=ann`, `5m`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker.cli.terminal import Misused

if TYPE_CHECKING:
    from pydantic import BaseModel

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def split(assignment: str) -> tuple[list[str], str]:
    """`user.username=ann` as the path `["user", "username"]` and the text `ann`."""
    path, equals, text = assignment.partition("=")
    steps = path.split(".")
    if not equals or not all(steps):
        raise Misused(f"{assignment!r} is not of the form field=value")
    return steps, text


def assign(members: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value where the path says, making the objects on its way."""
    for number, step in enumerate(path[:-1], start=1):
        inner = members.setdefault(step, {})
        if not isinstance(inner, dict):
            raise Misused(f"{'.'.join(path[:number])} is no object, so it cannot hold a field")
        members = inner
    members[path[-1]] = value


def fields(
    model: type[BaseModel] | None, assignments: Iterable[str], into: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The object that assignments such as `rating=4.5` describe, each value of its field's type.

    Begins with the members of `into`. What the model does not know, or does not allow, is passed
    on as it stands: the worker says what is wrong with it.
    """
    members = dict(into or {})
    schema = model.model_json_schema() if model is not None else {}
    for assignment in assignments:
        path, text = split(assignment)
        assign(members, path, parse(text, _types_at(path, schema)))
    return members


def parse(text: str, types: frozenset[str]) -> Any:
    """The value that the text stands for in a field of these JSON types; none means any.

    Text stays text in a field that takes strings and nothing else that the text could be.
    """
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text
    kind = _kind(value)
    if kind == "string":
        return text if "string" in types else value
    if not types or kind in types or (kind == "integer" and "number" in types):
        return value
    return text if "string" in types else value


def duration(text: str) -> timedelta | None:
    """`90s`, `5m`, `2h` or `1d`; `None` if it is none of these."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    try:
        return timedelta(**{_UNITS[found[2]]: float(found[1])})
    except OverflowError:
        return None


def moment(text: str, now: datetime) -> datetime | None:
    """A time with its zone, given as an age (`5m`) or in RFC 3339; `None` if it is neither."""
    age = duration(text)
    try:
        if age is not None:
            return now - age
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return time if time.tzinfo is not None else None


def _types_at(path: list[str], schema: Mapping[str, Any]) -> frozenset[str]:
    here: Any = schema
    for step in path:
        here = _resolved(here, schema).get("properties", {}).get(step, {})
    return frozenset(_types(here, schema))


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object schema behind a reference, or the first one among alternatives."""
    if "$ref" in schema:
        found: Mapping[str, Any] = root["$defs"][schema["$ref"].rpartition("/")[2]]
        return found
    for branch in (*schema.get("anyOf", ()), *schema.get("allOf", ())):
        inner = _resolved(branch, root)
        if "properties" in inner:
            return inner
    return schema


def _types(schema: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    if "$ref" in schema:
        return _types(_resolved(schema, root), root)
    found: set[str] = set()
    for branch in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        found |= _types(branch, root)
    given = schema.get("type", [])
    found.update([given] if isinstance(given, str) else given)
    if not found:
        found.update(map(_kind, schema.get("enum", [schema["const"]] if "const" in schema else [])))
    return found


def _kind(value: Any) -> str:
    return _KINDS[type(value)]


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(text)
    return value
