"""AMQP properties one by one, so that one which cannot be decoded, or written, costs only itself.

pamqp decodes all of them or raises. RabbitMQ hands on what publishers send, unread: text that is
not UTF-8, times beyond Python's years, tables nested a thousand deep.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

from pamqp import decode, encode
from pamqp.commands import Basic

FIRST = 14
"""Where the properties begin in a content header: after class, weight, body size and flags."""
MORE_FLAGS = 0x0001

# Bytes of a field of a table after the letter of its type; of the others their first four tell.
_FIXED = {
    **dict.fromkeys(b"V\x00", 0),
    **dict.fromkeys(b"tbB", 1),
    **dict.fromkeys(b"su", 2),
    **dict.fromkeys(b"Iif", 4),
    **dict.fromkeys(b"D", 5),
    **dict.fromkeys(b"lLdT", 8),
}
_LONG = frozenset(b"SAFx")


def properties_in(header: bytes) -> tuple[Basic.Properties, frozenset[str]]:
    """The properties of a content header's payload, and the names of those that it lost.

    Raises `ValueError` where the header itself is broken, and so no property can be trusted.
    """
    flags = int.from_bytes(header[FIRST - 2 : FIRST], "big")
    if flags & MORE_FLAGS or len(header) < FIRST:
        raise ValueError("flags that AMQP 0-9-1 does not have")
    found, lost, position = Basic.Properties(), set(), FIRST
    for name, flag in Basic.Properties.flags.items():
        if not flags & flag:
            continue
        kind = Basic.Properties.amqp_type(name)
        end = position + _size(kind, header[position : position + 4])
        if end > len(header):
            raise ValueError("properties that end too early")
        raw, position = header[position:end], end
        try:
            value = table_in(raw) if kind == "table" else decode.by_type(raw, kind)[1]
        except (ValueError, OverflowError, OSError):  # the last two: times beyond all years
            lost.add(name)
        else:
            setattr(found, name, value)
    return found, frozenset(lost)


def _size(kind: str, begin: bytes) -> int:
    match kind:
        case "shortstr":
            return 1 + int.from_bytes(begin[:1], "big")
        case "table":
            return 4 + int.from_bytes(begin, "big")
        case "timestamp":
            return 8
    return 1  # an octet


def table_in(raw: bytes) -> dict[str, Any]:
    """The fields of a table that can be decoded; `raw` begins with its length.

    What follows a field of a type that AMQP does not have is lost: nothing tells how long that is.
    """
    found: dict[str, Any] = {}
    position = 4
    while position < len(raw):
        type_at = position + 1 + raw[position]
        size = _size_of_field(raw[type_at : type_at + 5])
        if size is None or type_at + size > len(raw):
            break
        name, value = raw[position + 1 : type_at], raw[type_at : type_at + size]
        position = type_at + size
        try:
            found[name.decode()] = decode.embedded_value(value)[1]
        except (ValueError, ArithmeticError, OSError, RecursionError):
            continue
    return found


def _size_of_field(begin: bytes) -> int | None:
    if not begin:
        return None
    if begin[0] in _LONG:
        return 5 + int.from_bytes(begin[1:], "big")
    size = _FIXED.get(begin[0])
    return None if size is None else 1 + size


def written_anew(
    original: Basic.Properties,
    headers: Mapping[str, Any],
    *,
    keeps: Callable[[str], bool] = lambda _: True,
    limit: float = math.inf,
    **own: Any,
) -> Basic.Properties:
    """The original's properties, as far as they can be written, with further `headers`.

    `keeps` chooses among the original's headers; `own` replaces properties. What together is too
    long for a content header of `limit` bytes loses the longest of the original's headers, and,
    where there is no room even without them, the end of the longest text among `headers`.
    """
    written = Basic.Properties()
    for name, value in {**dict(original), **own, "headers": dict(headers)}.items():
        if value is not None and _is_writable(name, value):
            setattr(written, name, value)
    theirs = {
        name: value
        for name, value in (original.headers or {}).items()
        if name not in headers and keeps(name)
    }
    room = limit - size_of(written)
    if room < 0:
        written.headers = _cut(headers, by=-room)
    kept = dict(written.headers or {})
    for size, name in sorted((_size_written(name, theirs[name]), name) for name in theirs):
        if size >= room:
            break
        room -= size
        kept[name] = theirs[name]
    written.headers = kept or written.headers
    return written


def size_of(properties: Basic.Properties) -> int:
    """Bytes of a content header with these properties, as the payload of its frame."""
    return FIRST - 2 + len(properties.marshal())


def _cut(headers: Mapping[str, Any], *, by: float) -> dict[str, Any]:
    texts = {name: value.encode() for name, value in headers.items() if isinstance(value, str)}
    longest = max(texts, key=lambda name: len(texts[name]))
    text = texts[longest][: max(0, len(texts[longest]) - int(by))]
    return {**headers, longest: text.decode(errors="ignore")}


def _is_writable(name: str, value: Any) -> bool:
    try:
        Basic.Properties().encode_property(name, value)
    except _NOT_WRITABLE:
        return False
    return True


def _size_written(name: str, value: Any) -> float:
    """Bytes of a header as a field of its table; infinite if it cannot be written."""
    try:
        return len(encode.field_table({name: value}))
    except _NOT_WRITABLE:
        return math.inf


_NOT_WRITABLE = (ValueError, TypeError, ArithmeticError, struct.error, RecursionError)
