"""Values that JSON has no type for, in the one form in which people write them there.

A payload is strict: `"5"` is no number. But JSON can write a date in no other way than as text; so
a field that is a date takes that text, in one form, and no number.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, cast
from uuid import UUID

from pydantic import TypeAdapter
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

_TIME = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_OFFSET = r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
_SPAN = r"(?:[0-9]+D)?(?:T(?=[0-9])(?:[0-9]+H)?(?:[0-9]+M)?(?:[0-9]+(?:\.[0-9]{1,6})?S)?)?"

FORMS: Mapping[str, tuple[str, str]] = {
    "uuid": (r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID"),
    "date": (_DATE, "a date, YYYY-MM-DD"),
    "datetime": (_DATE + "T" + _TIME + _OFFSET, "a time as in RFC 3339, with its offset from UTC"),
    "naive datetime": (_DATE + "T" + _TIME, "a date and time without an offset from UTC"),
    "time": (_TIME + _OFFSET + "?", "a time of day, HH:MM:SS"),
    "timedelta": (rf"-?P(?=[0-9T]){_SPAN}", "a duration as in ISO 8601, such as P1DT2H"),
    "decimal": (r"-?[0-9]+(?:\.[0-9]+)?", "a number, or one written as text"),
    "bytes": (
        r"(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}==|[A-Za-z0-9+/_-]{3}=)?",
        "bytes in base64 (RFC 4648, section 4 or 5)",
    ),
}
"""By the type of core schema: the form of the text, for Python's as for ECMAScript's regular
expressions, and what to call it."""

_span = TypeAdapter(timedelta)
_READERS: Mapping[str, Callable[[str], Any]] = {
    "uuid": UUID,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "naive datetime": datetime.fromisoformat,
    "time": time.fromisoformat,
    "timedelta": _span.validate_python,
    "decimal": Decimal,
    "bytes": urlsafe_b64decode,  # takes both alphabets
}
_LEFT_ALONE = frozenset({"metadata", "serialization", "config", "default", "cls", "ref"})


def readable(schema: Any, resolve: Callable[[CoreSchema], CoreSchema]) -> Any:
    """The same schema, which also takes these values as JSON has them."""
    if isinstance(schema, list):
        return [readable(each, resolve) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reader = _reader_of(schema, resolve)
    inner = {
        name: each if name in _LEFT_ALONE else readable(each, resolve)
        for name, each in schema.items()
    }
    return inner if reader is None else no_info_before_validator_function(reader, cast(Any, inner))


def _reader_of(
    schema: Mapping[str, Any], resolve: Callable[[CoreSchema], CoreSchema]
) -> Callable[[Any], Any] | None:
    whole = schema
    if schema.get("type") == "definition-ref":
        whole = resolve(schema)
    match whole.get("type"):
        case "enum":
            return _member(whole["cls"])
        case "tuple":
            return _tuple
        case "set" | "frozenset":
            return _set
        case "datetime" if whole.get("tz_constraint") == "naive":
            return _text("naive datetime")
        case str(type_) if type_ in FORMS:
            return _text(type_)
    return None


def _text(type_: str) -> Callable[[Any], Any]:
    pattern, called = FORMS[type_]
    form, read = re.compile(pattern), _READERS[type_]

    def reader(value: Any) -> Any:
        if type_ == "decimal" and type(value) in (int, float):
            return Decimal(repr(value))  # the digits that were written
        if not isinstance(value, str):
            return value
        if not form.fullmatch(value):
            raise ValueError(f"must be {called}")
        try:
            return read(value)
        except ValueError:
            raise ValueError(f"must be {called}; there is none such") from None

    return reader


def _member(enum: type[Enum]) -> Callable[[Any], Any]:
    members = {(type(each.value), each.value): each for each in enum}

    def reader(value: Any) -> Any:
        if isinstance(value, enum):
            return value
        try:
            return members[type(value), value]
        except (KeyError, TypeError):
            known = ", ".join(repr(each.value) for each in enum)
            raise ValueError(f"must be one of: {known}") from None

    return reader


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _set(value: Any) -> Any:
    """A list in which nothing stands twice."""
    if not isinstance(value, list):
        return value
    try:
        found = set(value)
    except TypeError:
        raise ValueError("must hold plain values") from None
    if len(found) != len(value):
        raise ValueError("must not hold anything twice")
    return found
