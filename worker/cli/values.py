"""Turns words of the command line into values: `rating=4.5`, `user.username=ann`, `5m`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from worker.cli.terminal import Misused
from worker.codec.strict_json import DuplicateMember, Malformed, read_json

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


def assign(
    members: dict[str, Any], path: list[str], value: Any, *, overwrite: bool = False
) -> None:
    """Put a value where the path says, making the objects on its way.

    Raises `Misused` where something is there already, unless that is to be overwritten.
    """
    for number, step in enumerate(path[:-1], start=1):
        inner = members.setdefault(step, {})
        if not isinstance(inner, dict):
            raise Misused(f"{'.'.join(path[:number])} is no object, so it cannot hold a field")
        members = inner
    if path[-1] in members and not overwrite:
        raise Misused(f"{'.'.join(path)} is given twice")
    members[path[-1]] = value


def fields(
    model: type[BaseModel] | None,
    assignments: Iterable[str],
    into: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """The object that assignments such as `rating=4.5` describe, each value of its field's type.

    Begins with the members of `into`; raises `Misused` for one that is given again, unless that is
    to be overwritten. What the model does not know, or does not allow, is taken as it stands: the
    codec says what is wrong with it.
    """
    members = dict(into or {})
    schema = model.model_json_schema() if model is not None else {}
    for assignment in assignments:
        path, text = split(assignment)
        value = parse(text, _types_at(path, schema))
        assign(members, path, value, overwrite=overwrite)
    return members


def parse(text: str, types: frozenset[str]) -> Any:
    """The value that the text stands for in a field of these JSON types; none means any.

    Text stays text in a field that takes strings and nothing else that the text could be.
    """
    try:
        value = read_json(text)
    except DuplicateMember as error:
        if "string" in types:
            return text
        raise Misused(f"{text}: {error}") from None
    except Malformed:
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


def seconds(time: str) -> str:
    """A time in RFC 3339 to the second, as it stands."""
    return time[:19].replace("T", " ")


def clock(time: str, now: datetime | None = None) -> str:
    """A time in RFC 3339 in eight characters: that of the clock here, or days ago."""
    then = moment(time, datetime.now(UTC))
    if then is None:
        return "-"
    passed = (now or datetime.now(UTC)) - then
    return f"{passed.days}d ago" if passed.days > 0 else f"{then.astimezone():%H:%M:%S}"


def age(time: str, now: datetime | None = None) -> str:
    """How long ago a time in RFC 3339 was, in four characters: `12s`, `5m`, `3h`, `40d`."""
    then = moment(time, datetime.now(UTC))
    if then is None:
        return "-"
    passed = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed >= length:
            return f"{passed // length}{unit}"
    return f"{passed}s"


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
