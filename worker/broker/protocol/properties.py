"""The AMQP properties of a delivery, read from the bytes of its content header, and of what leaves.

pamqp decodes every property into an object; a command needs seven of them. What is not needed is
stepped over, and decoded only where a dead letter takes all of it along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pamqp import decode
from pamqp.commands import Basic

from worker.broker.protocol.cloudevents import MARKS, attributes_in
from worker.broker.protocol.content_header import (
    FIRST,
    MORE_FLAGS,
    properties_in,
    size_of,
    written_anew,
)
from worker.broker.protocol.frame_reader import UNREADABLE_HEADER, unreadable
from worker.core.messages import Publication
from worker.core.text import MAX_SHORT_STRING

# Property flags, in the order of the properties (AMQP 0-9-1, section 4.2.6.1).
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
_MESSAGE_ID, _TIMESTAMP, _TYPE, _USER_ID = 0x0080, 0x0040, 0x0020, 0x0010

PERSISTENT = 2

DIRECT_REPLY = "amq.rabbitmq.reply-to"

TRACE_HEADERS = frozenset({"traceparent", "tracestate"})

_ACTIVE_HEADERS = frozenset({"CC", "BCC", UNREADABLE_HEADER})


@dataclass(slots=True)
class Incoming:
    """What a command's handling depends on."""

    content_encoding: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None
    """Those of a CloudEvent in binary mode."""
    correlation_id: str | None = None
    reply_to: str | None = None
    message_id: str | None = None
    type: str | None = None
    user_id: str | None = None
    timestamp: int | None = None
    """When it was published, in whole seconds since 1970, if its publisher is to be believed."""
    lost: frozenset[str] = frozenset()
    """The properties, by pamqp's names, that could not be decoded."""
    unreadable: str | None = None


def read(header: bytes) -> Incoming:
    """Read a content header's payload; one that cannot be read says so, and raises nothing."""
    try:
        return _read(header)
    except Exception:  # whatever a hostile header may cause
        return _read_one_by_one(header)


def _read_one_by_one(header: bytes) -> Incoming:
    try:
        found, lost = properties_in(header)
    except ValueError as error:
        return Incoming(unreadable=unreadable(error))
    return Incoming(
        content_encoding=found.content_encoding or None,
        headers=(headers := found.headers or {}),
        attributes=attributes_in(headers, found.content_type),
        correlation_id=found.correlation_id or None,
        reply_to=found.reply_to or None,
        message_id=found.message_id or None,
        type=found.message_type or None,
        user_id=found.user_id or None,
        lost=lost,
    )


def _read(header: bytes) -> Incoming:
    flags = int.from_bytes(header[12:FIRST], "big")
    if flags & MORE_FLAGS or len(header) < FIRST:
        raise ValueError("flags that AMQP 0-9-1 does not have")
    found = Incoming()
    position = FIRST
    if flags & _CONTENT_TYPE:
        position = _after_string(header, position)
    if flags & _CONTENT_ENCODING:
        found.content_encoding, position = _string(header, position)
    if flags & _HEADERS:
        size, found.headers = decode.field_table(header[position:])
        position += size
        found.attributes = (
            None if MARKS.isdisjoint(found.headers) else _attributes(header, flags, found.headers)
        )
    position += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)  # one octet each
    if flags & _CORRELATION_ID:
        found.correlation_id, position = _string(header, position)
    if flags & _REPLY_TO:
        found.reply_to, position = _string(header, position)
    if flags & _EXPIRATION:
        position = _after_string(header, position)
    if flags & _MESSAGE_ID:
        found.message_id, position = _string(header, position)
    if flags & _TIMESTAMP:
        found.timestamp = int.from_bytes(header[position : position + 8], "big")
        position += 8
    if flags & _TYPE:
        found.type, position = _string(header, position)
    if flags & _USER_ID:
        found.user_id, position = _string(header, position)
    if position > len(header):
        raise ValueError("properties that end too early")
    return found


def _attributes(header: bytes, flags: int, headers: Mapping[str, Any]) -> dict[str, Any] | None:
    content_type = _string(header, FIRST)[0] if flags & _CONTENT_TYPE else None
    return attributes_in(headers, content_type)


def _string(header: bytes, position: int) -> tuple[str | None, int]:
    end = _after_string(header, position)
    return header[position + 1 : end].decode("utf-8") or None, end


def _after_string(header: bytes, position: int) -> int:
    return position + 1 + header[position]


def all_of(original: Basic.Properties | bytes) -> Basic.Properties:
    """Every property that can be decoded; none at all where the header is broken."""
    if isinstance(original, Basic.Properties):
        return original
    try:
        return properties_in(original)[0]
    except ValueError:
        return Basic.Properties()


def expiration_of(original: Basic.Properties | bytes | None) -> float | None:
    """Seconds after which the sender of a message has no more use for it, if it says so."""
    told = all_of(original).expiration if original is not None else None
    return int(told) / 1000 if told and told.isascii() and told.isdigit() else None


def of(publication: Publication, limit: float = math.inf) -> Basic.Properties:
    """What a message leaves with; a copy leaves with what its original came with.

    `limit` is how many bytes the broker takes as a content header.
    """
    if publication.copy_of is not None:
        return copy_of(publication.copy_of, publication.headers, limit=limit)
    found = _own(publication, publication.headers)
    return found if size_of(found) <= limit else _own(publication, without_trace(publication))


def without_trace(publication: Publication) -> dict[str, Any]:
    """The headers without those that only help to follow a command, and that have no bound."""
    return {name: value for name, value in publication.headers.items() if name not in TRACE_HEADERS}


def _own(publication: Publication, headers: Mapping[str, Any]) -> Basic.Properties:
    correlation = publication.correlation_id
    if correlation is not None and len(correlation.encode()) > MAX_SHORT_STRING:
        correlation = None  # it stands in the event, too
    return Basic.Properties(
        content_type=publication.content_type,
        message_type=publication.type,
        correlation_id=correlation,
        headers=dict(headers),
        timestamp=datetime.now(UTC),
        delivery_mode=PERSISTENT,
    )


def copy_of(
    source: Basic.Properties | bytes,
    headers: Mapping[str, Any],
    *,
    keeps: Callable[[str], bool] = lambda _: True,
    limit: float = math.inf,
) -> Basic.Properties:
    """The original's properties with further headers; `keeps` chooses among its own ones.

    Of what is longer than `limit` bytes something is left out, see `written_anew`.

    Left out is what would move, expire or fail the copy: `expiration`, `user_id`, `cluster_id` and
    the headers of sender-selected distribution.
    """
    original = all_of(source)
    only_its_asker_may = str(original.reply_to or "").startswith(DIRECT_REPLY)
    return written_anew(
        original,
        headers,
        keeps=lambda name: name not in _ACTIVE_HEADERS and keeps(name),
        limit=limit,
        delivery_mode=PERSISTENT,
        reply_to=None if only_its_asker_may else original.reply_to,
        expiration=None,
        user_id=None,
        cluster_id=None,
    )
