"""The frames of one group of messages, as one piece.

pamqp builds four objects for each message; here the method frame is kept, since event types are
few, and the content header is put together from its parts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from time import time
from typing import Any

import pamqp.frame
from pamqp.commands import Basic

from worker.broker.protocol.frame_reader import BODY, HEADER
from worker.broker.protocol.properties import without_trace
from worker.core.messages import Publication
from worker.core.text import MAX_SHORT_STRING

_FRAME_START = struct.Struct(">BHI")
_FRAME_END = b"\xce"
_BASIC_CLASS = 60
_CONTENT_START = struct.Struct(">HHQH")
_TIMESTAMP = struct.Struct(">Q")
_SIZE = struct.Struct(">I")
# content_type, headers, delivery_mode, message_id, timestamp; and what is not always there.
_ALWAYS = 0x8000 | 0x2000 | 0x1000 | 0x0080 | 0x0040
_CORRELATION_ID, _TYPE = 0x0400, 0x0020
_PERSISTENT = b"\x02"
_MAX_CACHED_METHODS = 1_000
_LONGEST_PAYLOAD = 2**32 - 1


def can_frame(publication: Publication) -> bool:
    """Whether the message is simple enough: no copy of another, nothing but text in its headers."""
    return publication.copy_of is None and all(
        isinstance(value, str | bool) for value in publication.headers.values()
    )


def payload_limit(max_content_size: int) -> int:
    """Most bytes in a frame, as negotiated; aiormq's figure is below 0 where there is no bound."""
    return max_content_size if max_content_size > 0 else _LONGEST_PAYLOAD


def frames(
    channel: int, limit: int, publications: Sequence[Publication], ids: Sequence[str]
) -> bytes:
    """Method, header and body frames of all the messages; `limit` is in bytes of a payload."""
    return b"".join(_parts(channel, limit, publications, ids))


def _parts(
    channel: int, limit: int, publications: Sequence[Publication], ids: Sequence[str]
) -> Iterator[bytes]:
    now = int(time())
    for publication, id_ in zip(publications, ids, strict=True):
        body = publication.body
        yield _method(channel, publication.exchange, publication.routing_key)
        header = _content_header(publication, publication.headers, id_, now)
        if len(header) > limit:
            header = _content_header(publication, without_trace(publication), id_, now)
        yield _frame(HEADER, channel, header)
        for start in range(0, len(body), limit):
            yield _frame(BODY, channel, body[start : start + limit])


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_START.pack(kind, channel, len(payload)) + payload + _FRAME_END


_methods: dict[tuple[int, str, str], bytes] = {}


def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    """`basic.publish`, mandatory; event types are few, so it is kept."""
    known = _methods.get((channel, exchange, routing_key))
    if known is not None:
        return known
    publish = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    frame = pamqp.frame.marshal(publish, channel)
    if exchange and len(_methods) < _MAX_CACHED_METHODS:
        _methods[channel, exchange, routing_key] = frame
    return frame


def _content_header(publication: Publication, own: Mapping[str, Any], id_: str, now: int) -> bytes:
    flags = _ALWAYS
    headers = b"".join(_field(name, value) for name, value in own.items())
    parts = [
        _short(publication.content_type or ""),
        _SIZE.pack(len(headers)),
        headers,
        _PERSISTENT,
    ]
    correlation = (publication.correlation_id or "").encode()
    if 0 < len(correlation) <= MAX_SHORT_STRING:  # a longer one stands in the event only
        flags |= _CORRELATION_ID
        parts.append(bytes((len(correlation),)) + correlation)
    parts += (_short(id_), _TIMESTAMP.pack(now))
    if publication.type is not None:
        flags |= _TYPE
        parts.append(_short(publication.type))
    return _CONTENT_START.pack(_BASIC_CLASS, 0, len(publication.body), flags) + b"".join(parts)


def _short(text: str) -> bytes:
    value = text.encode()
    return bytes((len(value),)) + value


def _field(name: str, value: str | bool) -> bytes:
    if isinstance(value, bool):
        return _short(name) + b"t" + bytes((value,))
    text = value.encode()
    return _short(name) + b"S" + _SIZE.pack(len(text)) + text
